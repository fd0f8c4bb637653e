"""The nearest patches of one 224x224 image, 196 tokens, in a bank: against the one matrix product that it needs.

The product alone gives no distance and keeps 196 x M numbers; a ratio of 1/3 is a search of three times its duration.
Beside it, what torch offers for distances.
"""

import torch
from timing import Row, compare, in_turn, prove_equal

from uniad_lightning.models.memory_bank import MemoryBank

TOKENS, CHANNELS, PATCHES = 196, 120, 78_400  # 14x14 cells, stride 16 of EfficientNet-Lite2, 400 train images


@torch.inference_mode()
def rows(quick: bool) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, TOKENS, CHANNELS, generator=generator)
    patches = torch.randn(PATCHES // 10 if quick else PATCHES, CHANNELS, generator=generator)
    bank = MemoryBank(channels=CHANNELS, neighbors=9, half=False, megabytes=16)
    bank.append(patches, torch.zeros(len(patches)))

    def search() -> torch.Tensor:
        return bank(tokens)

    def product() -> torch.Tensor:
        return tokens[0] @ patches.T

    def pairs() -> torch.Tensor:
        return torch.cdist(tokens[0], patches).amin(dim=1)

    prove_equal(search()[0], pairs(), "torch.cdist")
    product()
    seconds = in_turn({"search": search, "product": product, "pairs": pairs}, repeats=3 if quick else 15)
    name = f"nearest of {len(patches):,} patches of {CHANNELS} channels, {TOKENS} tokens"
    return [
        compare(f"{name}: one matrix product", seconds["search"], seconds["product"], 1 / 3),
        compare(f"{name}: torch.cdist and its minimum", seconds["search"], seconds["pairs"]),
    ]
