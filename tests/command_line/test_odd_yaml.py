"""YAML files of any content in --config-dir: one line that names the file, and no code run."""

import pytest

HEAD = "# @package _global_\n"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(12))
FILES = {
    "latin": ((HEAD + 'name: "gr\xfcn"\n').encode("latin-1"), "latin.yaml: not UTF-8 at byte 29"),
    "utf16": ((HEAD + "name: x\n").encode("utf-16"), "utf16.yaml: not UTF-8 at byte 0"),
    "selfish": (f"{HEAD}defaults:\n  - /experiment/selfish\n".encode(), "its files include each other in a circle"),
    "deep": (f"{HEAD}name: {'[' * 500}{']' * 500}\n".encode(), "deep.yaml: is nested more than 64 levels deep"),
    "nul": (f"{HEAD}name: a\0b\n".encode(), "nul.yaml: unacceptable character #x0000"),
    "alias": (f"{HEAD}name: &a [*a]\n".encode(), "alias.yaml: its alias *a stands for what holds it"),
    "bomb": ((HEAD + BOMB).encode(), "bomb.yaml: has more than 100000 values"),
    "code": (f"{HEAD}name: !!python/object/apply:os.mkdir [made]\n".encode(), "code.yaml, line 2, column 7: could not"),
    "tabs": (f"{HEAD}\tname: x\n".encode(), "tabs.yaml, line 2, column 1: found character"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_named_in_one_line(uniad, tmp_path, monkeypatch, name):
    content, said = FILES[name]
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    words = [f"--config-dir={tmp_path}/conf", f"experiment={name}", f"data.root={tmp_path}/absent"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/out")
    assert status == 2, err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "made").exists()


def test_a_few_aliases_are_no_bomb(uniad, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "fine.yaml").write_text(f"{HEAD}seed: &a 3\ndata:\n  limit: *a\n")
    (tmp_path / "conf" / "experiment" / "unused.yaml").write_bytes("name: grün".encode("latin-1"))
    words = [f"--config-dir={tmp_path}/conf", "experiment=fine", f"data.root={tmp_path}/absent"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/out")
    assert status == 2
    assert "absent" in err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("callbacks.heatmaps=3", "callbacks.heatmaps: is 3, expected a mapping with _target_, or null"),
        ("+callbacks.mine={a: 1}", "callbacks.mine: is {'a': 1}, expected a mapping with _target_, or null"),
        ("callbacks.checkpoint=null", "callbacks.checkpoint=null: a training needs its checkpoint"),
    ],
)
def test_what_is_no_callback_is_named(uniad, tree, tmp_path, override, said):
    from support.settings import SMALL

    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/out", override)
    assert status == 2
    assert said in err


def test_a_callback_that_is_null_is_left_out(uniad, tree, tmp_path):
    from support.settings import QUICK

    words = [f"data.root={tree}", f"output_dir={tmp_path}/out"]
    nulls = [f"callbacks.{name}=null" for name in ("heatmaps", "progress", "monitor")]
    status, _, err = uniad("train", *QUICK, *words, *nulls)
    assert status == 0, err
    assert not (tmp_path / "out" / "heatmaps").exists()
    ckpt = f"ckpt_path={tmp_path}/out/checkpoints/last.ckpt"
    status, _, err = uniad("evaluate", ckpt, f"output_dir={tmp_path}/e", "callbacks.heatmaps=null", "trainer=cpu")
    assert status == 0, err
