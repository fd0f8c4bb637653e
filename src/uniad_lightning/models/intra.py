"""The network of InTra (Pirnay and Chai 2022): a transformer that paints a masked patch from those around it.

P pixels of a patch times channels; L*L patches in a window, S windows. Pre-norm blocks whose queries and keys come from
a small MLP each (multi-head feature self-attention), with long residual connections between blocks as in a U-Net.
"""

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_counts
from uniad_lightning.types import Size


class FeatureSelfAttention(nn.Module):
    """Self-attention with queries and keys of half the width, by MLPs `dim` -> 2 `dim` -> `dim` / 2."""

    def __init__(self, *, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key = (
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim // 2)) for _ in range(2)
        )
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(S, T, E) -> the same."""
        query, key, value = (
            part(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (S, heads, T, d)
            for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=3)  # (S, heads, T, T)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a feed-forward network of four times the width, each after a layer norm and beside an identity."""

    def __init__(self, *, dim: int, num_heads: int):
        super().__init__()
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attend = FeatureSelfAttention(dim=dim, num_heads=num_heads)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(S, T, E) -> the same."""
        tokens = tokens + self.attend(self.first(tokens))
        return tokens + self.feed(self.second(tokens))


class InpaintingTransformer(nn.Module):
    """Paints one patch of each window of `window` x `window` patches of a `grid` of them; `pixels` are P.

    A token is its patch, its position in the grid and that in the window; of the masked patch, a learned vector takes
    the place of the pixels. What block i of n gives is added to what block n - i gives. The mean over tokens becomes
    the patch. Raises InputError for sizes that do not fit.
    """

    def __init__(self, *, grid: Size, window: int, pixels: int, hidden_dim: int, num_heads: int, num_layers: int):
        super().__init__()
        check_counts({"hidden_dim": hidden_dim, "num_heads": num_heads, "num_layers": num_layers})
        if hidden_dim % (2 * num_heads):
            raise InputError(
                f"model.hidden_dim={hidden_dim}: expected a multiple of twice model.num_heads={num_heads}; queries and "
                "keys have half the width"
            )
        self.embed = nn.Linear(pixels, hidden_dim)
        self.masked = nn.Parameter(torch.zeros(hidden_dim))
        self.in_grid = nn.Parameter(torch.zeros(grid[0] * grid[1], hidden_dim))
        self.in_window = nn.Parameter(torch.zeros(window * window, hidden_dim))
        for parameter in (self.masked, self.in_grid, self.in_window):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.blocks = nn.ModuleList(Block(dim=hidden_dim, num_heads=num_heads) for _ in range(num_layers))
        self.paint = nn.Linear(hidden_dim, pixels)

    def forward(self, patches: Tensor, places: Tensor, masked: Tensor) -> Tensor:
        """Patches (S, L*L, P), their places in the grid (S, L*L), which of them is masked (S,) -> painted (S, P)."""
        own = torch.arange(places.shape[1], device=places.device) == masked[:, None]  # (S, L*L)
        tokens = torch.where(own[..., None], self.masked, self.embed(patches))
        tokens = tokens + self.in_grid[places] + self.in_window  # (S, L*L, E)
        count = len(self.blocks)
        kept: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if count - number in kept:
                tokens = tokens + kept.pop(count - number)
            elif 2 * number < count:
                kept[number] = tokens
        return self.paint(tokens.mean(dim=1))


def cut_patches(image: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W) as patches (B, N, C * size * size), row-major."""
    parts = image.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (B, C, h, size, w, size)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def join_patches(patches: Tensor, grid: Size, size: int) -> Tensor:
    """The inverse of `cut_patches`: (B, N, C * size * size) -> (B, C, H, W)."""
    parts = patches.unflatten(2, (-1, size, size)).unflatten(1, grid)  # (B, h, w, C, size, size)
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def surrounding_windows(grid: Size, window: int) -> tuple[Tensor, Tensor]:
    """For each patch of the grid the window that it is painted from: places (N, L*L), and which of them it is (N,).

    The patch is in the middle, but for the edges of the grid, where the window is moved inside.
    """
    rows, columns = (_starts(count, window) for count in grid)
    row, column = torch.arange(grid[0]), torch.arange(grid[1])
    places = window_places(rows[:, None], columns[None], window=window, width=grid[1])  # (h, w, L*L)
    own = (row - rows)[:, None] * window + (column - columns)[None]  # (h, w)
    return places.flatten(0, 1), own.flatten()


def window_places(rows: Tensor, columns: Tensor, *, window: int, width: int) -> Tensor:
    """Places (..., L*L), row-major, in a grid of `width` columns of the windows that begin at `rows` and `columns`."""
    offsets = torch.arange(window, device=rows.device)
    inside = (offsets[:, None] * width + offsets[None]).flatten()  # (L*L,)
    return (rows * width + columns)[..., None] + inside


def _starts(count: int, window: int) -> Tensor:
    """First of the `window` patches around each of `count`: r = g - max(0, g + L - count), g = max(0, c - L // 2)."""
    first = (torch.arange(count) - window // 2).clamp(min=0)
    return first - (first + window - count).clamp(min=0)
