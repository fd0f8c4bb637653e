"""The pages of a project in W&B, a workspace and a report with the paper's tables, by W&B's own package.

Building and checking them needs no network.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.paper import numbers as paper
from uniad_lightning.paper.wandb_panels import bars, bars_over_runs, evaluations, heatmaps, roc, runs, training
from uniad_lightning.tracking.boards import STEP

MVTEC = tuple(name for name in paper.TABLE_1 if name != "mean")
TITLE = "UniAD beside its paper"


class Source(NamedTuple):
    """The runs that a table of the report shows.

    Attributes:
        group: their W&B group, the name of their sweep's folder.
        command: trains such runs.
    """

    group: str
    command: str


_TRAIN = "uniad train experiment=mvtec data.root=mvtec_ad logger=wandb"
SEEDS = Source("mvtec", f"{_TRAIN} -m seed={','.join(map(str, range(paper.SEEDS)))} output_dir=runs/mvtec")
NEIGHBOR_SIZES = Source("neighbor_size", f"{_TRAIN} sweep=neighbor_size")
JITTER_SCALES = Source("jitter_scale", f"{_TRAIN} sweep=jitter_scale")


class Pages(NamedTuple):
    """Both pages of one project, each saved as a new one."""

    workspace: ws.Workspace
    report: wr.Report


def build_pages(*, entity: str, project: str, categories: Sequence[str]) -> Pages:
    """The pages of `entity`'s `project`, with panels for each of the `categories`."""
    return Pages(_workspace(entity, project, categories), _report(entity, project, categories))


def specification(page: ws.Workspace | wr.Report) -> dict[str, Any]:
    """The specification that saving `page` sends, after W&B's package has read it back without loss.

    Raises InputError where something is lost, since the saved page would not be the one that was built.
    """
    spec = page._to_model().spec  # as in `save`; the package's public `_spec` fails for reports
    sent = json.loads(spec.model_dump_json(by_alias=True, exclude_none=True))
    read = type(spec).model_validate(sent).model_dump(mode="json", by_alias=True, exclude_none=True)
    if not _contains(read, sent):
        kind = type(page).__name__.lower()
        raise InputError(f"wandb-workspaces does not read back the {kind} that it writes; install the release 0.4.13")
    return sent


def _contains(read: Any, sent: Any) -> bool:
    """Whether all of `sent` is in `read`, which may have defaults besides."""
    if isinstance(sent, dict):
        return isinstance(read, dict) and all(key in read and _contains(read[key], sent[key]) for key in sent)
    if isinstance(sent, list):
        return isinstance(read, list) and len(read) == len(sent) and all(map(_contains, read, sent))
    return read == sent


def summary(pages: Pages) -> str:
    """The sections of the workspace with their numbers of panels, and the headings of the report, one line each."""
    sections = ", ".join(f"{section.name} {len(section.panels)}" for section in pages.workspace.sections)
    headings = ", ".join(str(block.text) for block in pages.report.blocks if isinstance(block, wr.H1))
    return f"workspace, panels by section: {sections}\nreport, by heading: {headings}"


def save(pages: Pages) -> tuple[str, str]:
    """Save both pages and return their addresses.

    Raises InputError without an account, and where W&B refuses the pages.
    """
    try:
        if wandb.login(prompt=False, verify=False):
            return pages.workspace.save().url, pages.report.save().url
    except Exception as error:  # the errors of W&B's packages have no common class
        raise InputError(f"W&B did not save the pages, check --entity and --project: {one_line(error)}") from error
    raise InputError("saving needs a W&B account and found no API key: run `wandb login`, or set WANDB_API_KEY")


def _workspace(entity: str, project: str, categories: Sequence[str]) -> ws.Workspace:
    sections: dict[str, list[Any]] = {
        "training": training(),
        "detection and localization": evaluations(),
        "per category": [
            bars(name, [f"{metric}/{name}" for metric in ("image_auroc", "pixel_auroc", "aupro")])
            for name in categories
        ],
        "ROC": roc(),
        "heatmaps": heatmaps(categories),
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )


def _report(entity: str, project: str, categories: Sequence[str]) -> wr.Report:
    return wr.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description="Results beside those of the paper, arXiv 2206.03687",
        blocks=[
            wr.P("AUROC of the paper in percent, that of runs as a fraction of 1, as they log it."),
            wr.TableOfContents(),
            *_by_category("Table 1: detection on MVTec AD, AUROC of images", "image_auroc", _methods(1)),
            *_by_category("Table 2: localization on MVTec AD, AUROC of pixels", "pixel_auroc", _methods(2)),
            *_by_setting("Table 5c: neighbor size", "model.neighbor_size", NEIGHBOR_SIZES, paper.TABLE_5C),
            *_by_setting("Table 5e: jitter scale", "model.jitter.scale", JITTER_SCALES, paper.TABLE_5E),
            wr.H1("Curves"),
            wr.PanelGrid(runsets=[wr.Runset(name="all runs")], panels=[*training(), *evaluations(), *roc()]),
            wr.H1("Heatmaps"),
            wr.P("Image, mask, map and overlay of one good and some defective test images of each category."),
            wr.PanelGrid(runsets=[wr.Runset(name="all runs")], panels=heatmaps(categories)),
        ],
    )


def _by_category(title: str, metric: str, printed: str) -> list[Any]:
    """A table with a row for each category of MVTec AD: the paper's, and our runs over several seeds."""
    names = [f"{metric}/{category}" for category in MVTEC]
    return [
        wr.H1(title),
        wr.P("Each method: unified / separate, one model for all categories / one for each."),
        wr.MarkdownBlock(printed),
        _source(SEEDS),
        wr.PanelGrid(
            runsets=[runs(SEEDS.group, [f"summary:{name}" for name in (f"mean/{metric}", *names)])],
            panels=[bars_over_runs(metric, [f"mean/{metric}", *names], by=None, layout=wr.Layout(w=24, h=12))],
        ),
    ]


def _by_setting(title: str, key: str, source: Source, rows: Mapping[int, paper.Auroc]) -> list[Any]:
    """A table with a row for each value of one setting: the paper's, and our runs grouped by it."""
    printed = [[str(value), f"{row.detection}", f"{row.localization}"] for value, row in rows.items()]
    metrics = {"detection": "mean/image_auroc", "localization": "mean/pixel_auroc"}
    columns = [f"config:{key}.value", *(f"summary:{metric}" for metric in metrics.values())]
    return [
        wr.H1(title),
        wr.MarkdownBlock(_markdown([key, *metrics], printed)),
        _source(source),
        wr.PanelGrid(
            runsets=[runs(source.group, columns)],
            panels=[bars_over_runs(name, [metric], by=key, layout=wr.Layout(w=12)) for name, metric in metrics.items()],
        ),
    ]


def _methods(table: int) -> str:
    """Table 1 or 2 as the paper prints it."""
    ours, methods, others = {
        1: (paper.TABLE_1, paper.TABLE_1_METHODS, paper.TABLE_1_OTHERS),
        2: (paper.TABLE_2, paper.TABLE_2_METHODS, paper.TABLE_2_OTHERS),
    }[table]
    rows = [
        [name, *(f"{unified} / {separate}" for unified, separate in others[name]),
         f"{row.unified} ± {row.deviation:.2f} / {row.separate}"]
        for name, row in ours.items()
    ]  # fmt: skip
    return _markdown(["category", *methods, "UniAD"], rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _source(source: Source) -> wr.P:
    text = f"Runs of the group {source.group}, mean and standard deviation; trained by: "
    return wr.P([text, wr.InlineCode(source.command)])
