"""InTra's network: what a masked patch may see, where windows lie, and the blocks as a rewrite has them."""

import numpy as np
import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.models.intra import (
    InpaintingTransformer,
    cut_patches,
    join_patches,
    surrounding_windows,
    window_places,
)


def network(layers=5, window=3, grid=(5, 6)):
    torch.manual_seed(0)
    return InpaintingTransformer(grid=grid, window=window, pixels=12, hidden_dim=16, num_heads=2, num_layers=layers)


@pytest.mark.parametrize(("grid", "window"), [((5, 6), 3), ((16, 16), 7), ((7, 9), 7), ((8, 5), 4)])
def test_every_patch_is_painted_from_a_window_that_holds_it_and_lies_in_the_grid(grid, window):
    places, own = surrounding_windows(grid, window)
    for t, c in np.ndindex(*grid):
        number = t * grid[1] + c
        g = [max(1, x + 1 - window // 2) for x in (t, c)]  # counted from 1, as the paper has it
        r, s = (top - max(0, top + window - n - 1) for top, n in zip(g, grid, strict=True))
        expected = [(y - 1) * grid[1] + x - 1 for y in range(r, r + window) for x in range(s, s + window)]
        assert places[number].tolist() == expected
        assert 1 <= r <= grid[0] - window + 1
        assert 1 <= s <= grid[1] - window + 1
        assert places[number, own[number]] == number


def test_windows_anywhere_are_neighbouring_patches_of_the_grid():
    places = window_places(torch.tensor([2]), torch.tensor([1]), window=2, width=7)
    assert places.tolist() == [[15, 16, 22, 23]]


def test_pixels_of_the_masked_patch_have_no_influence_and_all_others_have():
    model, (places, own) = network(), surrounding_windows((5, 6), 3)
    patches = torch.rand(30, 9, 12, requires_grad=True)
    model(patches, places, own).square().sum().backward()
    influence = patches.grad.abs().amax(dim=2)  # (30, 9)
    masked = torch.nn.functional.one_hot(own, 9).bool()
    assert (influence[masked] == 0).all()
    assert (influence[~masked] > 0).all()


def test_positions_in_grid_and_window_matter():
    model = network()
    patches, own = torch.rand(1, 9, 12).expand(2, 9, 12), torch.tensor([4, 4])
    places = window_places(torch.tensor([0, 2]), torch.tensor([0, 3]), window=3, width=6)
    first, second = model(patches, places, own)
    assert not torch.allclose(first, second)
    shuffled = model(patches[:, [0, 1, 2, 3, 4, 5, 6, 8, 7]], places, own)  # the same patches elsewhere
    assert not torch.allclose(shuffled[0], first)


@pytest.mark.parametrize("layers", [1, 2, 4, 5])
def test_it_is_that_of_a_rewrite(layers):
    model = network(layers).double()
    patches, places, own = torch.rand(1, 9, 12).double(), torch.arange(9)[None] + 3, torch.tensor([2])
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        scaled = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def mlp(name, x):
        return linear(f"{name}.2", torch.nn.functional.gelu(torch.from_numpy(linear(f"{name}.0", x))).numpy())

    def block(name, x):
        y = norm(f"{name}.first", x)
        query, key, value = (
            mlp(f"{name}.attend.query", y),
            mlp(f"{name}.attend.key", y),
            linear(f"{name}.attend.value", y),
        )
        heads = []
        for h in range(2):
            a = np.exp(query[:, 4 * h : 4 * h + 4] @ key[:, 4 * h : 4 * h + 4].T / 2)
            heads.append(a / a.sum(axis=1, keepdims=True) @ value[:, 8 * h : 8 * h + 8])
        x = x + linear(f"{name}.attend.out", np.concatenate(heads, axis=1))
        return x + mlp(f"{name}.feed", norm(f"{name}.second", x))

    tokens = linear("embed", patches[0].numpy())
    tokens[2] = weights["masked"]
    tokens = tokens + weights["in_grid"][3:12] + weights["in_window"]
    given = {}
    for number in range(1, layers + 1):
        tokens = given[number] = block(f"blocks.{number - 1}", tokens)
        if 1 <= layers - number < number:
            tokens = tokens + given[layers - number]
    expected = linear("paint", tokens.mean(axis=0, keepdims=True))
    assert np.allclose(model(patches, places, own).detach().numpy(), expected)


def test_patches_are_cut_and_put_together():
    image = torch.arange(2 * 3 * 8 * 12).float().view(2, 3, 8, 12)
    patches = cut_patches(image, 4)
    assert torch.equal(patches[1, 5], image[1, :, 4:8, 8:12].flatten())
    assert torch.equal(join_patches(patches, (2, 3), 4), image)


def test_a_width_that_cannot_be_divided_is_refused():
    with pytest.raises(InputError, match="model.hidden_dim=20: expected a multiple of twice model.num_heads=4"):
        InpaintingTransformer(grid=(4, 4), window=3, pixels=3, hidden_dim=20, num_heads=4, num_layers=1)
