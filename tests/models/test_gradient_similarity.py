"""Multi-scale gradient similarity as an independent rewrite has it, and where it is 1."""

import numpy as np
import torch
from scipy.ndimage import convolve

from uniad_lightning.models.gradient_similarity import gradient_magnitude, gradient_similarity

PREWITT = np.array([[1, 0, -1]] * 3) / 3


def rewritten(first, second, scales):
    """RIAD's similarity of two (H, W) images with SciPy's filters, bilinear as pixels at the centres of squares."""
    size, total = first.shape, 0
    for _ in range(scales):
        lengths = [
            np.sqrt(sum(convolve(image, f, mode="nearest") ** 2 for f in (PREWITT, PREWITT.T)) + 1e-6)
            for image in (first, second)
        ]
        alike = (2 * lengths[0] * lengths[1] + 170 / 255**2) / (lengths[0] ** 2 + lengths[1] ** 2 + 170 / 255**2)
        total = total + enlarged(alike, size)
        first, second = (
            image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3)) for image in (first, second)
        )
    return total / scales


def enlarged(image, size):
    axes = [np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(size, image.shape, strict=True)]
    rows = np.stack([np.interp(axes[0], np.arange(image.shape[0]), column) for column in image.T], axis=1)
    return np.stack([np.interp(axes[1], np.arange(image.shape[1]), row) for row in rows])


def test_it_is_that_of_a_rewrite_at_four_scales():
    first, second = np.random.default_rng(0).random((2, 3, 32, 48))
    found = gradient_similarity(torch.from_numpy(first)[None], torch.from_numpy(second)[None])
    assert np.allclose(found[0], rewritten(first.mean(axis=0), second.mean(axis=0), 4), atol=1e-6)


def test_a_patch_has_the_scales_that_the_filter_fits_in():
    first, second = np.random.default_rng(1).random((2, 1, 16, 16))  # 16, 8 and 4 pixels; 2 would be too few
    found = gradient_similarity(torch.from_numpy(first)[None], torch.from_numpy(second)[None])
    assert np.allclose(found[0], rewritten(first[0], second[0], 3), atol=1e-6)


def test_equal_images_are_alike_whatever_is_added_to_one():
    image = torch.rand(2, 3, 20, 27, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(gradient_similarity(image, image), torch.ones(2, 20, 27))
    assert torch.allclose(gradient_similarity(image, image + 0.25), torch.ones(2, 20, 27), atol=1e-4)
    assert gradient_similarity(image, image.flip(3)).mean() < 0.9


def test_slopes_are_finite_where_an_image_is_flat():
    flat = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    (1 - gradient_similarity(flat, torch.rand(1, 3, 8, 8))).mean().backward()
    assert flat.grad.isfinite().all()
    assert torch.allclose(gradient_magnitude(flat.detach()), torch.full((1, 3, 8, 8), 1e-3))
