"""The row of a table that a run belongs to, from its resolved settings; None for no row."""

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, NamedTuple

from uniad_lightning.data.layouts.cifar10 import CLASSES

Settings = Mapping[str, Any]  # by dotted names

CATEGORIES = "data.categories"
LOSSES = {"MSELoss": "mse", "NormalizedMSELoss": "normalized_mse", "CosineLoss": "cosine"}  # of Table A4

# The other systems of the tables, by the class that a run names; all else is a method of our own.
SYSTEMS = {
    "UninformedStudents": "US",
    "PatchSVDD": "PSVDD",
    "PadimDetector": "PaDiM",
    "CutPasteDetector": "CutPaste",
    "FCDD": "FCDD",
    "MKD": "MKD",
    "DRAEM": "DRAEM",
    "PANDA": "PANDA",
    "InTra": "InTra",
    "VTADL": "VT-ADL",
    "AnoViT": "AnoVit",
}


class OfSystem(NamedTuple):
    """A row of another system: its name in the tables, and the row that it would be of a method of our own."""

    system: str
    row: Hashable


def system(settings: Settings) -> str | None:
    """Which other system of the tables a run is; FCDD with other images as anomalies is FCDD+OE (Table 3)."""
    name = SYSTEMS.get(_class(settings, "model"))
    exposed = name == "FCDD" and _class(settings, "data.defects") == "OutlierExposure"
    return "FCDD+OE" if exposed else name


def of_systems(known: Collection[str], row_of: Callable[[Settings], Hashable]) -> Callable[[Settings], Hashable]:
    """`row_of`, of the `known` systems as `OfSystem`; None for the others."""

    def row_of_any(settings: Settings) -> Hashable:
        name, row = system(settings), row_of(settings)
        if name is None or row is None:
            return row
        return OfSystem(name, row) if name in known else None

    return row_of_any


def among(known: Collection[Hashable], row_of: Callable[[Settings], Hashable]) -> Callable[[Settings], Hashable]:
    """`row_of`, with None for a row that is not `known`."""

    def known_row_of(settings: Settings) -> Hashable:
        row = row_of(settings)
        return row if row in known else None

    return known_row_of


def setting(name: str) -> Callable[[Settings], Hashable]:
    """The value of one setting; a tuple for a list."""

    def row_of(settings: Settings) -> Hashable:
        value = settings.get(name)
        return tuple(value) if isinstance(value, list) else value

    return row_of


def alone(settings: Settings) -> str | None:
    """The only category trained on, as in the paper's separate case; None in the unified case."""
    chosen = settings.get(CATEGORIES)
    return str(chosen[0]) if isinstance(chosen, list) and len(chosen) == 1 else None


def case(settings: Settings) -> str:
    """Unified or separate."""
    return "separate" if alone(settings) else "unified"


def split(settings: Settings) -> str:
    """The normal classes of CIFAR-10 as digits in order (Table 3)."""
    given = settings.get("data.normal_classes")
    parts = str(given) if isinstance(given, str | int) else given or []
    return "".join(sorted(str(CLASSES.index(part)) if part in CLASSES else str(part) for part in parts))


def components(settings: Settings) -> str | None:
    """The queries, mask and jitter (Table A2), by the names of `conf/ablation`."""
    parts = _parts(settings)
    if parts is None:
        return None
    decoder, masked, jittered = parts
    queries = "layer_wise" if decoder == "a" else decoder
    return f"{queries}{'_mask' if masked else ''}{'_jitter' if jittered else ''}"


def components_in_case(settings: Settings) -> Hashable:
    """The components or the other system, and unified or separate (Table 4)."""
    return system(settings) or components(settings), case(settings)


def decoder(settings: Settings) -> Hashable:
    """The decoder's design, and whether mask and jitter are both on or both off (Table A3)."""
    parts = _parts(settings)
    return parts[:2] if parts and parts[1] == parts[2] else None


def network(settings: Settings) -> str | None:
    """The network that reconstructs (Fig. 2), by the names of `conf/model`."""
    name = _class(settings, "model").lower()
    kinds = {"one_query": "transformer", "layer_wise_mask_jitter": "uniad"}
    return name if name in ("mlp", "cnn") else kinds.get(components(settings) or "")


def network_in_case(settings: Settings) -> Hashable:
    """The network, and unified or separate (Fig. 4)."""
    return network(settings), case(settings)


def layers(settings: Settings) -> Hashable:
    """The network, and how many encoder and decoder layers it has (Table 5b)."""
    return network(settings), settings.get("model.num_encoder_layers"), settings.get("model.num_decoder_layers")


def loss(settings: Settings) -> str | None:
    """The loss (Table A4), by the names of `conf/loss`."""
    return LOSSES.get(_class(settings, "loss"))


def backbone(settings: Settings) -> str | None:
    """The backbone (Table A6), by the names of `conf/backbone`; None for one with further `backbone.arguments`."""
    rebuilt = any(name.startswith("backbone.arguments.") for name in settings)
    return None if rebuilt else str(settings.get("backbone.name")).split(".")[0].removeprefix("tf_")


def _parts(settings: Settings) -> tuple[str, bool, bool] | None:
    """Decoder, neighbor mask, feature jitter; None for other networks, and for a mask or jitter that is partly on."""
    if _class(settings, "model") == "VanillaTransformer":  # the same network as UniAD with these
        return "one_query", False, False
    design, masked, prob = (settings.get(f"model.{name}") for name in ("decoder", "masked", "jitter.prob"))
    if design is None or not isinstance(masked, list) or len(set(masked)) > 1 or prob not in (0, 1):
        return None
    return design, masked[0], prob == 1


def _class(settings: Settings, group: str) -> str:
    return str(settings.get(f"{group}._target_")).rpartition(".")[2]
