"""The W&B pages are built and checked with no network, show what runs log, and are saved as they were checked."""

import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from support.paths import ROOT
from support.settings import SMALL
from support.wandb_files import read, records
from uniad_lightning.paper.wandb_pages import JITTER_SCALES, MVTEC, NEIGHBOR_SIZES, SEEDS, build_pages, specification

SCRIPT = ROOT / "scripts" / "wandb_dashboard.py"


@pytest.fixture
def dashboard(monkeypatch, capfd):
    """Run the script in this process where nothing can reach a network or start a process: (status, out, err)."""

    def shut(*_, **__):
        raise AssertionError("reaches out")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, shut)
    monkeypatch.setattr(subprocess.Popen, "__init__", shut)

    def call(*words):
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *words])
        capfd.readouterr()
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return status, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def specifications():
    pages = build_pages(entity="team", project="project", categories=("bottle", "cable"))
    return {kind: specification(page) for kind, page in pages._asdict().items()}


def nodes(tree):
    """Every dict in nested dicts and lists."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def test_both_are_built_and_checked_without_network(dashboard, tmp_path):
    status, out, err = dashboard("--entity", "team", "--out", str(tmp_path / "pages.json"))
    assert (status, err) == (0, "")
    assert "training 4, detection and localization 4, per category 15, ROC 4, heatmaps 15" in out
    assert "--save sends them, which needs a W&B account" in out
    written = json.loads((tmp_path / "pages.json").read_text())
    assert [section["name"] for section in written["workspace"]["section"]["panelBankConfig"]["sections"]] == [
        "training", "detection and localization", "per category", "ROC", "heatmaps"
    ]  # fmt: skip
    headings = [block["children"][0]["text"] for block in written["report"]["blocks"] if block["type"] == "heading"]
    assert [heading.partition(":")[0] for heading in headings] == [
        "Table 1", "Table 2", "Table 5c", "Table 5e", "Curves", "Heatmaps"
    ]  # fmt: skip


def test_products_of_ones_own_have_panels(dashboard, tmp_path):
    status, out, _ = dashboard("--entity", "team", "--categories", "lid", "--out", str(tmp_path / "pages.json"))
    assert status == 0
    assert "per category 1, ROC 4, heatmaps 1" in out
    assert "heatmaps/lid" in (tmp_path / "pages.json").read_text()


def test_saving_without_an_account_is_told_in_one_line(dashboard, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    status, _, err = dashboard("--entity", "team", "--save")
    assert status == 2
    assert re.fullmatch(r"wandb_dashboard: saving needs a W&B account and found no API key: run `wandb login`.*\n", err)


def test_missing_package_is_told_in_one_line(dashboard, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    status, _, err = dashboard("--entity", "team")
    assert status == 2
    assert err == "wandb_dashboard: needs W&B's package wandb-workspaces: pip install wandb-workspaces\n"


def test_default_project_is_the_loggers(dashboard, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # or a line may end within its name
    logger = yaml.safe_load((ROOT / "conf" / "logger" / "wandb.yaml").read_text())
    _, out, _ = dashboard("--help")
    assert f"(default: {logger['project']})" in out


@pytest.mark.parametrize(
    ("heading", "row"),
    [
        ("Table 1", ["cable", "60.0 / 86.2", "64.4 / 90.3", "70.9 / 92.7", "69.2 / 81.2", "78.2 / 89.2", "57.8 / 91.8",
                     "95.2 ± 0.84 / 97.6"]),
        ("Table 2", ["mean", "81.8 / 93.9", "85.6 / 95.7", "89.5 / 97.4", "63.3 / 92.0", "84.9 / 90.7", "87.2 / 97.3",
                     "96.8 ± 0.02 / 96.6"]),
        ("Table 5c", ["1", "94.6", "96.3"]),
        ("Table 5e", ["30", "95.7", "96.6"]),
    ],
)  # fmt: skip
def test_the_papers_rows_stand_in_the_report(specifications, heading, row):
    blocks = iter(specifications["report"]["blocks"])
    next(block for block in blocks if block["children"][0].get("text", "").startswith(f"{heading}:"))
    table = next(block["content"] for block in blocks if block["type"] == "markdown-block")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert row in rows
    assert {len(cells) for cells in rows} == {len(row)}


def test_every_category_of_tables_1_and_2_is_shown(specifications):
    shown = {metric for node in nodes(specifications["report"]) for metric in node.get("metrics", ())}
    assert len(MVTEC) == 15
    for metric in ("image_auroc", "pixel_auroc"):
        assert {f"{metric}/{category}" for category in MVTEC} <= shown


def test_all_that_is_shown_is_logged(specifications, uniad, tree, tmp_path):
    status, _, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=wandb", "logger.wandb.offline=true",
        "logger.wandb.upload_checkpoint=false", "trainer.log_every_n_steps=1",
    )  # fmt: skip
    assert status == 0, err
    written = read(tmp_path / "run")
    panels = [node for node in nodes(specifications) if "viewType" in node]
    configs = [panel["config"] for panel in panels]
    on_a_gpu = {"train/gpu_memory_gib"}
    of_others = {f"{metric}/{category}" for metric in ("image_auroc", "pixel_auroc") for category in MVTEC}

    shown = {name for config in configs for name in config.get("metrics", ())}
    shown |= {config["xAxis"] for config in configs if "xAxis" in config}
    assert shown - of_others - on_a_gpu <= written.history.keys()
    assert {"image_auroc/bottle", "train/lr", "trainer/global_step", "pooled/aupro"} <= shown
    pictures = {name for config in configs for name in config.get("mediaKeys", ())}
    assert pictures == {"heatmaps/bottle", "heatmaps/cable", "roc/image", "roc/pixel"}
    assert all(written.history[f"{name}/_type"][-1][1] == "image-file" for name in pictures)
    settings = {config["groupBy"] for config in configs if "groupBy" in config}
    assert {setting.removesuffix(".value") for setting in settings} == {"model.neighbor_size", "model.jitter.scale"}
    assert {setting.removesuffix(".value") for setting in settings} <= written.config.keys()

    drawn = [panel["config"] for panel in panels if panel["viewType"] == "Vega2"]
    logged = list(charts(tmp_path / "run"))
    assert len(logged) == 2
    for key in ("panelDefId", "fieldSettings", "stringSettings"):
        assert {json.dumps(chart[key]) for chart in drawn} == {json.dumps(chart[key]) for chart in logged}
    tables = {node["value"] for node in nodes(drawn) if node.get("name") == "tableKey"}
    assert tables == {node["value"] for node in nodes(logged) if node.get("name") == "tableKey"}


def charts(folder):
    """The panels that `wandb.plot` has W&B show by itself, as a run has written them."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for item in (item for record in records(file) for item in record.config.update):
        if item.nested_key[:2] == ["_wandb", "visualize"]:
            yield json.loads(item.value_json)["panel_config"]


@pytest.mark.parametrize("source", [SEEDS, NEIGHBOR_SIZES, JITTER_SCALES], ids=lambda source: source.group)
def test_a_groups_command_leaves_runs_of_that_group(specifications, command, source):
    filters = [node["filters"] for node in nodes(specifications["report"]) if node.get("filterFormat")]
    assert source.group in {part["value"] for parts in filters for part in parts if part["key"]["name"] == "group"}
    program, *words = shlex.split(source.command)
    assert program == "uniad"
    assert "logger=wandb" in words
    # One configuration can be shown, not several.
    one = [re.sub(r"^(seed=\d),.*", r"\1", word) for word in words if word != "-m"]
    status, out, err = command(*one, "--cfg", "all", "--resolve")
    assert status == 0, err
    assert Path(yaml.safe_load(out)["hydra"]["sweep"]["dir"]).name == source.group


class Answering(BaseHTTPRequestHandler):
    """A server of W&B's with one team, that keeps the specifications it is sent."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        answer = json.dumps(self.answer(request.get("query", ""), request.get("variables") or {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, query, given):
        project = {"id": "1", "name": "p", "entityName": "team"}
        if given.get("entityName", "team") != "team":
            return {"data": None, "errors": [{"message": "permission denied"}]}
        if "upsertView" in query:
            self.server.saved.append(given)
            return {"data": {"upsertView": {"view": {**given, "id": "Vmlldw==", "project": project}, "inserted": True}}}
        if "upsertModel" in query:
            return {"data": {"result": {"project": project, "inserted": True}}}
        user = {"id": "u", "username": "me", "entity": "team", "flags": "{}", "teams": {"edges": []}}
        projects = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"data": {"viewer": user, "models": projects}}

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.saved = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def saved_by_script(server, folder, *words):
    own = {f"WANDB_{kind}_DIR": str(folder / kind) for kind in ("DATA", "CACHE", "CONFIG")}
    return subprocess.run(
        [sys.executable, SCRIPT, "--save", *words],
        env={**os.environ, **own, "WANDB_BASE_URL": server.address, "WANDB_API_KEY": "0" * 40},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_what_is_saved_is_what_was_checked(server, tmp_path):
    done = saved_by_script(server, tmp_path, "--entity", "team", "--project", "p", "--out", tmp_path / "pages.json")
    assert done.returncode == 0, done.stderr
    workspace, report = server.saved
    checked = json.loads((tmp_path / "pages.json").read_text())
    assert json.loads(workspace["spec"]) == checked["workspace"]
    assert json.loads(report["spec"]) == checked["report"]
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    assert {(page["entityName"], page["projectName"]) for page in server.saved} == {("team", "p")}
    addresses = done.stdout.splitlines()[-2:]
    assert addresses[0].startswith(f"{server.address}/team/p?nw=")
    assert addresses[1].startswith(f"{server.address}/team/p/reports/")


@pytest.mark.slow
def test_a_refusal_is_told_in_one_line(server, tmp_path):
    done = saved_by_script(server, tmp_path, "--entity", "others")
    assert done.returncode == 2, done.stderr
    assert server.saved == []
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r"wandb_dashboard: W&B did not save the pages, .*permission denied", done.stderr.splitlines()[-1]
    )
