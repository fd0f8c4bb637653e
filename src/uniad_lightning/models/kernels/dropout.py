"""Dropout and attention with dropout: torch's own on a GPU; on a CPU faster, where torch's take a third of a training.

On a CPU the random numbers depend on the state of torch's generator and a sample's place in the global batch alone, not
on the number of threads or processes.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from uniad_lightning.randomness import sample_seeds

LEVELS = 2**16
WEIGHTS_IN_CACHE = 2**19  # attention weights each thread works on at a time: 2 MB, about a core's own cache


class Dropout(nn.Module):
    """Zeroes each element with probability `p` in training mode and divides the others by 1 - p; any shape."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * _draw_kept(x.shape, self.p).to(x.dtype).div_(_kept_share(self.p))


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """Softmax(q k^T / sqrt(D) + mask) v, as torch's function of this name; all (B, heads, N, D) -> (B, heads, N, D).

    `attn_mask` is (N, N) bool, True = takes part in attention, or None for full attention; `dropout_p` is the dropout
    probability of the attention weights.
    """
    if dropout_p == 0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, dropout_p=dropout_p)
    n = query.shape[-2]
    bias = query.new_zeros(n, n)
    if attn_mask is not None:
        bias.masked_fill_(~attn_mask, -torch.inf)
    flat = (x.reshape(-1, n, x.shape[-1]) for x in (query, key, value))  # (B*heads, N, D)
    kept = _draw_kept(torch.Size((*query.shape[:2], n, n)), dropout_p).flatten(0, 1)
    output: Tensor = _DroppedAttention.apply(*flat, bias, kept, 1 / _kept_share(dropout_p))
    return output.view(query.shape)


class _DroppedAttention(Function):
    """softmax(q k^T / sqrt(D) + bias) x kept x rescale, times v: three of (M, N, D), (N, N), (M, N, N) -> (M, N, D).

    A few of the M at a time, so that their weights stay in the cache between operations. Of all (M, N, N) tensors only
    the weights and `kept` (one byte each) are saved for the backward pass.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kept: Tensor, rescale: float) -> Tensor:
        ctx.scale, ctx.rescale = q.shape[-1] ** -0.5, rescale
        weights = q.new_empty(len(q), *bias.shape)
        output = torch.empty_like(q)
        for part in _parts(weights):
            scores = torch.baddbmm(bias, q[part], k[part].transpose(1, 2), alpha=ctx.scale)
            torch.softmax(scores, dim=-1, out=weights[part])
            dropped = torch.mul(weights[part], kept[part], out=scores)
            _product(dropped, v[part], factor=ctx.rescale, out=output[part])
        ctx.save_for_backward(q, k, v, weights, kept)
        return output

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        q, k, v, weights, kept = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for part in _parts(weights):
            dropped = weights[part] * kept[part]
            _product(dropped.transpose(1, 2), grad[part], factor=ctx.rescale, out=grad_v[part])
            grad_weights = _product(grad[part], v[part].transpose(1, 2), factor=ctx.rescale, out=dropped)
            grad_weights.mul_(kept[part])
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights[part], -1, weights.dtype)
            _product(grad_scores, k[part], factor=ctx.scale, out=grad_q[part])
            _product(grad_scores.transpose(1, 2), q[part], factor=ctx.scale, out=grad_k[part])
        return grad_q, grad_k, grad_v, None, None, None


def _product(a: Tensor, b: Tensor, *, factor: float, out: Tensor) -> Tensor:
    """Factor x a x b of batches of matrices, written to `out`, in one call."""
    return torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


def _parts(weights: Tensor) -> list[slice]:
    """Slices of the first dimension of (M, N, N) that fit the cores' caches."""
    size = max(1, torch.get_num_threads() * WEIGHTS_IN_CACHE // weights[0].numel())
    return [slice(start, start + size) for start in range(0, len(weights), size)]


def _draw_kept(shape: torch.Size, p: float) -> Tensor:
    """1 where an element of `shape` (B, ...) is kept and 0 where it is dropped, int8; each sample has its own stream.

    Drawing takes most of the time, so torch's generator only seeds NumPy's fastest, and each 64-bit draw of that serves
    four elements with 16 bits each. Clamping replaces a comparison, which takes several times longer in torch.
    """
    count = shape[1:].numel()
    least = _dropped_levels(p) - LEVELS // 2  # as int16: elements with at least this are kept
    kept = torch.empty(shape[0], count, dtype=torch.int8)
    for sample, seed in zip(kept, sample_seeds(shape[0]), strict=True):
        bits = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16))[:count]
        sample.copy_(bits.clamp_(least - 1, least).sub_(least - 1))
    return kept.view(shape)


def _kept_share(p: float) -> float:
    """1 - p rounded to 16 bits as in `_draw_kept`, so that the mean is preserved exactly."""
    return 1 - _dropped_levels(p) / LEVELS


def _dropped_levels(p: float) -> int:
    return min(max(round(p * LEVELS), 1), LEVELS - 1)
