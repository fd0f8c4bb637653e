"""Batch norms of a frozen network, folded into the convolutions before them."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Subclasses of other packages, too: some pad by the size of their input, which fx cannot follow.
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(model: nn.Module, remainders: Mapping[type, Callable[[nn.Module], nn.Module]]) -> nn.Module:
    """A faster network with the outputs of `model` in eval mode, to rounding; `model` itself is not changed.

    `remainders` makes of each type of batch norm what is left of it without scale and shift, such as an activation;
    other types are not folded. All weights are shared with `model` but those of folded convolutions. Returns `model`
    where nothing can be folded, or where fx cannot trace it.
    """
    if not any(type(module) in remainders for module in model.modules()):
        return model
    try:
        graph = _Tracer().trace(model)
    except Exception:  # a model may do with fx's proxies anything that only a tensor can do
        return model
    folded = fx.GraphModule(model, graph)
    modules = dict(folded.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, norm = modules[str(before.target)], modules[str(node.target)]
        once = calls[node.target] == calls[before.target] == 1
        if once and isinstance(convolution, nn.Conv2d) and type(norm) in remainders and norm.running_mean is not None:
            folded.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            folded.set_submodule(str(node.target), remainders[type(norm)](norm))
    return folded


def _versions(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Address and version of each tensor of `model`: they change when a weight is moved or written to."""
    tensors = chain(model.parameters(), model.buffers())
    return tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors)


class Gate:
    """Lets many threads run models, or one thread trace one: fx patches every module's call while it traces."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._running = 0
        self._tracing = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """For a thread that runs models."""
        with self._state:
            self._state.wait_for(lambda: not self._tracing)
            self._running += 1
        try:
            yield
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """For a thread that traces one."""
        with self._state:
            self._state.wait_for(lambda: not self._tracing and not self._running)
            self._tracing = True
        try:
            yield
        finally:
            with self._state:
                self._tracing = False
                self._state.notify_all()


GATE = Gate()  # one for the process, as fx's patch is


class Folded:
    """Keeps the folded form of a model, and folds again when a weight of it was moved or written to."""

    def __init__(self, remainders: Mapping[type, Callable[[nn.Module], nn.Module]]):
        self.remainders = remainders
        self.kept: tuple[object, nn.Module] | None = None

    def __call__(self, model: nn.Module) -> nn.Module:
        """The folded form of `model`, which has to be in eval mode."""
        now = _versions(model)
        if self.kept is None or self.kept[0] != now:
            with torch.inference_mode(False), torch.no_grad():
                self.kept = now, fold_batch_norms(model, self.remainders)
        return self.kept[1]

    def __getstate__(self) -> dict[str, object]:
        # Copies and other processes fold again.
        return {**self.__dict__, "kept": None}
