"""Names and paths on the command line stay as they were typed, whatever else Hydra could take them for."""

import json
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.command_line.parsing import parse
from uniad_lightning.command_line.quoting import as_text

NAMES = [
    "4711E2",
    "0012",
    "1e3",
    "true",
    "0x1F",
    "1_000",
    "4711",
    "-1",
    "+5",
    "1.5",
    ".5",
    "nan",
    "Inf",
    "FALSE",
    "12:30",
]
NAMES += ["gehäuse", "größe M8", "a#b", "a&b", "x (1)", "a=b", "bolt", "Bolt M8", "yes", "2024-05-01", "a.b"]


def value(word: str) -> object:
    """What Hydra makes of an override of a command line."""
    (override,) = OverridesParser.create().parse_overrides(parse("train", [word]).overrides)
    return override.value()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["category", "data.root", "++input", "data.source.products.bolt.good"])
def test_a_name_is_a_text(key: str, name: str) -> None:
    assert value(f"{key}={name}") == name
    assert value(f"{key}='{name}'") == name


@pytest.mark.parametrize("key", ["input", "ckpt_path", "data.root", "output_dir"])
@pytest.mark.parametrize("character", [*",=({[#'\"` )}];&!@%^<>|?*~$:"])
def test_a_path_may_have_any_character(key: str, character: str) -> None:
    for path in (
        f"a{character}b",
        f"/d/{character}/x, y.png",
        f"{character}a",
        f"a{character}",
        f"{character}a{character}",
    ):
        closed = path[0] == path[-1] and path[0] in "'\""  # is Hydra's own way to quote
        assert value(f"{key}={path}") == (path[1:-1] if closed else path)


@pytest.mark.parametrize(
    "path", ["[ab]", "{ab}", "[a,b].png", "copy(2)", "f(x,y)", "a='b'", "null.png", "a\nb", "'a','b'"]
)
def test_a_path_may_look_like_a_list_or_a_function(path: str) -> None:
    assert value(f"input={path}") == path


def test_a_comma_in_a_path_divides_the_jobs_of_a_sweep() -> None:
    for words in (["-m"], ["sweep=seeds"]):
        parsed = parse("train", [*words, "data.root=a,b"]).overrides[-1]
        (swept,) = OverridesParser.create().parse_overrides([parsed])
        assert swept.is_sweep_override()
        assert parse("train", [*words, "data.root=a(1)"]).overrides[-1] == "data.root='a(1)'"


def test_a_value_that_hydra_cannot_read_is_shown_in_quotes(uniad) -> None:
    status, _, err = uniad("train", "name=it's (2)")
    assert status == 2
    (line,) = err.splitlines()
    quoted = line.rpartition("quote special characters: ")[2]
    (word,) = shlex.split(quoted)
    assert value(word) == "it's (2)"


@pytest.mark.slow
def test_a_path_with_all_of_them_is_trained_and_predicted_on(tmp_path, uniad) -> None:
    place = tmp_path / "a, b=c ({[#'.d"
    mvtec_tree(place / "t", categories=("a",), train=6, size=(64, 64))
    status, _, err = uniad("train", *SMALL, "trainer=smoke", f"data.root={place}/t", f"output_dir={place}/run")
    assert status == 0, err
    ckpt, image = f"ckpt_path={place}/run/checkpoints/last.ckpt", f"input={place}/t/a/test/good/000.png"
    status, out, err = uniad("predict", ckpt, image, f"output_dir={place}/p")
    assert status == 0, err
    assert f"{place}/p" in out
    assert (place / "p" / "predictions.csv").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_names_in_lists_and_mappings_are_texts(name: str) -> None:
    assert value(f"data.categories=[{name},b , {name}]") == [name, "b", name]
    if ":" not in name:
        found = value(f"data.source.products={{bolt:{{good:{name},defective:[{name},c]}}}}")
        assert found == {"bolt": {"good": name, "defective": [name, "c"]}}
        assert value(f"data.source.parts={{lab:{{root:{name},test_share:0.3}}}}")["lab"]["root"] == name


@pytest.mark.parametrize(
    "name", [name for name in NAMES if ":" not in name and name.isascii() and not set("#&(=") & {*name}]
)
def test_names_of_products_are_texts(name: str) -> None:
    (found,) = value(f"data.source.products={{{name}:{{good:x}}}}")
    assert isinstance(found, str)
    assert found.lstrip(" ") == name


def test_a_key_that_hydra_cannot_read_is_told(uniad) -> None:
    status, _, err = uniad("train", "data=folder", "data.source.products={gehäuse:{good:x}}")
    assert status == 2
    assert err == (
        "uniad: gehäuse: such a name cannot be a key on the command line; write it in a YAML file of your own "
        "(--config-dir)\n"
    )


def test_what_is_no_name_stays_what_it_is() -> None:
    assert value("category=null") is None
    assert value("data.categories=null") is None
    assert value("data.categories=[null]") == ["null"]
    assert value("data.source.products={a:{good:x,masks:null}}") == {"a": {"good": "x", "masks": None}}
    assert value("data.source.parts={a:{root:x,test_share:0.5}}") == {"a": {"root": "x", "test_share": 0.5}}
    assert value("data.source.parts.a.test_share=0.5") == 0.5
    assert value("data.normal_classes=[0,ship]") == [0, "ship"]
    assert value("data.normal_classes=56789") == 56789
    assert value("seed=1_000") == 1000
    assert value("data.limit=1e3") == 1e3
    for word in ("data.root=${oc.env:HOME,1}/x", "data=folder", "-m", "~data.root", "category=choice(a,b)", "x"):
        assert as_text(word) == word
    (swept,) = OverridesParser.create().parse_overrides([as_text("category=1e3,b")])
    assert [getattr(one, "text", one) for one in swept.value().list] == ["1e3", "b"]


@pytest.mark.slow
def test_products_of_such_names_are_trained_and_asked_for(tmp_path, uniad) -> None:
    mvtec_tree(tmp_path / "2024", categories=("4711E2", "0012", "1_000"), train=6, size=(64, 64))
    given = [
        f"data.root={tmp_path}/2024",
        "data.categories=[4711E2,1_000]",
        "data.held_out=0.4",
        "trainer.max_epochs=1",
    ]
    status, _, err = uniad("train", *SMALL, *given, f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert sorted(json.loads((tmp_path / "run/metrics.json").read_text())["categories"]) == ["1_000", "4711E2"]
    ckpt = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    status, _, err = uniad("calibrate", ckpt, f"output_dir={tmp_path}/calibrated", "rate=0.3")
    assert status == 0, err
    image = f"input={tmp_path}/2024/1_000/test/good/000.png"
    for product in ("4711E2", "1_000"):
        status, _, err = uniad("predict", ckpt, image, f"category={product}", f"output_dir={tmp_path}/{product}")
        assert status == 0, err
    status, _, err = uniad("predict", ckpt, image, "category=0012", f"output_dir={tmp_path}/x")
    assert status == 2
    assert "category=0012: has no boundary of its own" in err


def test_a_product_in_a_pattern_may_have_such_a_name(tmp_path, uniad) -> None:
    mvtec_tree(tmp_path / "t", categories=("a",), train=6, size=(64, 64))
    products = "{4711E2:{good:a/train/good,test_good:a/test/good},007:{good:a/test/hole,defective:a/test/scratch}}"
    given = ["data=folder", f"data.root={tmp_path}/t", f"data.source.products={products}", "data.held_out=0"]
    status, _, err = uniad("train", *SMALL, "trainer.max_epochs=1", *given, f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert sorted(json.loads((tmp_path / "run/metrics.json").read_text())["categories"]) == ["007", "4711E2"]
