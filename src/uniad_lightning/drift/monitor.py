"""Compares the last images of each product with the calibration's good ones, and says when that changes."""

from typing import Any, NamedTuple

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.drift.limits import Limits, limits_of
from uniad_lightning.drift.window import Window
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.baseline import Baseline
from uniad_lightning.inspection.boundary import Calibration

OK, DRIFT, UNKNOWN = "ok", "drift", "unknown"
# Of one count of one window, without drift. What comes of it over overlapping windows: docs/drift.md.
LEVEL = 1e-5
END = 1e-3  # drift is over where this is no longer reached, so that a count at a limit does not go to and fro
_LARGEST = 100_000  # images of a window
_USUAL = 200  # that of conf/

_OLDER = "the detector was calibrated by an earlier version: uniad calibrate ckpt_path=... keeps what is compared"


class Change(NamedTuple):
    """The state of a product was `before` and has become `state`, for the reason `why`."""

    product: str
    before: str
    state: str
    why: str

    @property
    def sentence(self) -> str:
        """What to print; empty where a window is full for the first time and nothing has drifted."""
        if (self.before, self.state) == (UNKNOWN, OK):
            return ""
        name = self.product or "the product"
        if self.state == DRIFT:
            return f"{name} has drifted: {self.why}; look at light, camera and parts, then uniad calibrate"
        return f"{name} is as it was: {self.why}"


def check_settings(*, drift_window: Any, drift_defects: Any) -> None:
    """Raises InputError for a window and a share of defective parts that cannot be used."""
    whole = isinstance(drift_window, int) and not isinstance(drift_window, bool)
    if not whole or not 10 <= drift_window <= _LARGEST:
        raise InputError(f"drift_window={drift_window}: expected a whole number of images from 10 to {_LARGEST}")
    number = isinstance(drift_defects, int | float) and not isinstance(drift_defects, bool)
    if not number or not 0 <= drift_defects < 1:
        raise InputError(f"drift_defects={drift_defects}: expected a share from 0 and below 1, such as 0.1")


class Monitor:
    """Windows of the last `window` images of each product, of which a share of up to `defects` may be defective.

    The state of a product is `unknown` until its window is full, and then `ok` or `drift`. Raises InputError for
    settings that cannot be used.
    """

    def __init__(self, calibration: Calibration | None, *, window: int, defects: float):
        check_settings(drift_window=window, drift_defects=defects)
        self.window, self.defects = window, defects
        self.products: dict[str, Product] = {}
        self._baselines = {} if calibration is None else calibration.baselines or {}
        self._names = {composed(name): name for name in self._baselines}
        self.why_unknown = _why_unknown(calibration)
        self._older = calibration is not None and calibration.baselines is None  # set by an earlier version

    @property
    def state(self) -> str:
        """`drift` where any product has drifted, `ok` where none has and one is `ok`, otherwise `unknown`."""
        states = {product.state for product in self.products.values()}
        return next((state for state in (DRIFT, OK) if state in states), UNKNOWN)

    @property
    def warnings(self) -> list[str]:
        """Why some drift will never be seen, a line for each reason."""
        lines = [f"drift is not known: {self.why_unknown}"] if self._older else []
        if short := self._too_short():
            of = ", ".join(f"{name or 'the product'} ({images})" for name, images in short.items())
            lines.append(
                f"drift_window={self.window} can never show drift with as few good images as the calibration had of "
                f"{of}: give a longer window, or calibrate on more good images"
            )
        return lines

    def add(self, product: str, score: float, *, familiar: bool | None) -> Change | None:
        """Take in an image of `product`, an empty name where it is not known; what has changed by it, if anything."""
        own = self.product(product)
        before = own.state
        own.add(score, familiar=familiar)
        return None if own.state == before else Change(own.name, before, own.state, own.why)

    def product(self, product: str) -> "Product":
        """The state of `product`, which begins with this where it has none."""
        name = self._name(product)
        if name not in self.products:
            self.products[name] = Product(name, self._baselines.get(name), self)
        return self.products[name]

    def _too_short(self) -> dict[str, int]:
        """The products for which this window can never call drift and the usual one could, each with its good images.

        A calibration of very few good images is not meant: no window is long enough for it.
        """
        return {
            name: own.images
            for name, own in self._baselines.items()
            if not limits_of(own, self.window, defects=self.defects, level=LEVEL).can_tell
            and limits_of(own, max(_USUAL, self.window), defects=self.defects, level=LEVEL).can_tell
        }

    def _name(self, product: str) -> str:
        if not product and len(self._baselines) == 1:
            return next(iter(self._baselines))
        return self._names.get(composed(product), product)


def _why_unknown(calibration: Calibration | None) -> str:
    """Why a product without a baseline has none."""
    if calibration is None:
        return "the detector is not calibrated: uniad calibrate ckpt_path=..."
    if calibration.baselines is None:
        return _OLDER
    if not calibration.baselines:
        return "the detector cannot tell its products apart, so their scores cannot be compared"
    return f"the calibration had no good images of it; it had: {', '.join(calibration.baselines)}"


class Statistics(NamedTuple):
    """What the images of a window gave.

    Attributes:
        images: how many there are, at most the size of the window.
        unfamiliar_share: share of them that are unfamiliar, in [0, 1].
        median: of their scores.
        interquartile_range: of their scores.
    """

    images: int
    unfamiliar_share: float
    median: float
    interquartile_range: float


class Product:
    """The window of one product, beside its `baseline`; None where it has none, for the reason `why_unknown`."""

    def __init__(self, name: str, baseline: Baseline | None, monitor: Monitor):
        self.name = name
        self.baseline = baseline
        self.images = Window(monitor.window)
        self.state = UNKNOWN
        self._size, self._why_unknown = monitor.window, monitor.why_unknown
        self._passed: list[str] = []
        self._compared_by: Limits
        self._alarm, self._end = (
            None if baseline is None else limits_of(baseline, monitor.window, defects=monitor.defects, level=level)
            for level in (LEVEL, END)
        )

    def add(self, score: float, *, familiar: bool | None) -> None:
        """Take in an image."""
        self.images.add(score, unfamiliar=familiar is False)
        limits = self._end if self.state == DRIFT else self._alarm
        if self.baseline is None or limits is None or not limits.can_tell or len(self.images) < self._size:
            return
        self._passed, self._compared_by = limits.passed(**self._counts(self.baseline)), limits
        self.state = DRIFT if self._passed else OK

    @property
    def why(self) -> str:
        """The state in words."""
        if self.baseline is None or self._alarm is None:
            return self._why_unknown
        if not self._alarm.can_tell:
            return f"too few for any comparison: {self.baseline.images} good images, a window of {self._size}"
        if self.state == UNKNOWN:
            return f"{len(self.images)} of {self._size} images"
        if self.state == OK:
            return f"the last {self._size} images are like the good ones of the calibration"
        counts, limits = self._counts(self.baseline), self._compared_by
        # After the alarm the limits are others, those at which it ends: said, as they are not those that called it.
        from_, to = ("limit", "limit") if limits is self._alarm else ("over below", "over above")
        told = {
            "unfamiliar": f"{counts['unfamiliar']} are unfamiliar ({from_} {limits.unfamiliar})",
            "higher": f"{counts['above']} score above the median of good images ({from_} {limits.higher})",
            "lower": f"only {counts['above']} score above the median of good images ({to} {limits.lower})",
            "wider": f"only {counts['inside']} score between the quartiles of good images ({to} {limits.wider})",
            "narrower": f"{counts['inside']} score between the quartiles of good images ({from_} {limits.narrower})",
        }
        return f"of the last {self._size} images {', '.join(told[name] for name in self._passed)}"

    def _counts(self, baseline: Baseline) -> dict[str, int]:
        above = self.images.above
        return {
            "unfamiliar": self.images.unfamiliar,
            "above": above(baseline.median),
            "inside": above(baseline.low) - above(baseline.high),
        }

    def statistics(self) -> "Statistics":
        """Of the images in the window. Raises IndexError before the first one."""
        quantile = self.images.quantile
        share = self.images.unfamiliar / len(self.images)
        return Statistics(len(self.images), share, quantile(0.5), quantile(0.75) - quantile(0.25))

    def limits(self) -> dict[str, float | None]:
        """Shares of the window at which drift is called, by name of `Limits`; None where no share is."""
        if self._alarm is None:
            return {}
        limits = self._alarm._asdict()
        return {
            name: count / self._size if 0 <= count <= self._size else None
            for name, count in limits.items()
            if name != "window"
        }
