"""One training step of the paper's network: the package's against one of torch's own layers, same weights and input.

    python benchmarks/training_step.py [--quick] [--turns 9] [--threads 2]

The opponent is written from the paper as the reference implementation works: `nn.MultiheadAttention` as it comes,
learned queries and positions repeated for each image, tokens first, the neighbor mask built in each step. A step is
forward, loss, backward, clipping and AdamW, at batch 16. First the two prove equal output and gradients.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from timing import Row, compare, in_turn, machine, prove_equal
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CONF = Path(__file__).parents[1] / "conf"
BATCH, CHANNELS, TARGET = 16, 272, 1.4
Step = Callable[[], object]


class OpponentLayer(nn.Module):
    """Of the encoder without `num_queries`, of the decoder with it."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, num_queries: int = 0):
        super().__init__()
        self.queries = nn.Embedding(num_queries, dim) if num_queries else None
        count = 2 if num_queries else 1
        self.attentions = nn.ModuleList(nn.MultiheadAttention(dim, heads, dropout) for _ in range(count))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(count + 1))
        self.widen, self.narrow = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, previous: Tensor, encoded: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """Previous layer's output, encoder's output and positions, all (N, B, E) -> (N, B, E)."""
        x, sources = previous, [previous]
        if self.queries is not None:
            x, sources = self.queries.weight[:, None].repeat(1, previous.shape[1], 1), [encoded, previous]
        for attention, norm, source in zip(self.attentions, self.norms, sources, strict=False):
            x = norm(x + self.dropout(attention(x + position, source + position, source, attn_mask=mask)[0]))
        hidden = self.dropout(F.relu(self.widen(x)))
        return self.norms[-1](x + self.dropout(self.narrow(hidden)))


class Opponent(nn.Module):
    """Tokens (B, N, C) -> their reconstruction (B, N, C), with the settings of conf/model/uniad.yaml."""

    def __init__(self, model):
        super().__init__()
        self.height, self.width, self.window = *model.grid, model.neighbor_size
        dim, cells = model.hidden_dim, self.height * self.width
        sizes = dim, model.num_heads, model.feedforward_dim, model.dropout
        self.row, self.column = nn.Embedding(self.height, dim // 2), nn.Embedding(self.width, dim // 2)
        self.reduce, self.recover = nn.Linear(CHANNELS, dim), nn.Linear(dim, CHANNELS)
        self.encoder = nn.ModuleList(OpponentLayer(*sizes) for _ in range(model.num_encoder_layers))
        self.decoder = nn.ModuleList(OpponentLayer(*sizes, cells) for _ in range(model.num_decoder_layers))
        self.norm = nn.LayerNorm(dim)
        self.scale = model.jitter.scale

    def mask(self) -> Tensor:
        """(N, N): minus infinity where a token may not look, else 0."""
        reach = self.window // 2
        mask = self.row.weight.new_zeros(self.height, self.width, self.height, self.width)
        for i in range(self.height):
            for j in range(self.width):
                mask[i, j, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1] = -torch.inf
        return mask.flatten(2).flatten(0, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = tokens.transpose(0, 1)  # (N, B, C)
        if self.training:
            x = x + torch.randn_like(x) * x.norm(dim=-1, keepdim=True) / CHANNELS * self.scale
        cells = [self.column.weight.repeat(self.height, 1), self.row.weight.repeat_interleave(self.width, 0)]
        position = torch.cat(cells, 1)[:, None].repeat(1, x.shape[1], 1)  # (N, B, E)
        mask = self.mask()
        x = self.reduce(x)
        for layer in self.encoder:
            x = layer(x, x, position, mask)
        encoded = x
        for layer in self.decoder:
            x = layer(x, encoded, position, mask)
        return self.recover(self.norm(x)).transpose(0, 1)


def pairs(ours, theirs: Opponent) -> Iterable[tuple[Tensor, Tensor]]:
    """Parameters of ours and those of the opponent that mean the same."""
    inner = ours.transformer
    yield inner.position.row, theirs.row.weight
    yield inner.position.column, theirs.column.weight
    modules = [(ours.input_proj, theirs.reduce), (ours.output_proj, theirs.recover), (inner.norm, theirs.norm)]
    for mine, other in zip([*inner.encoder, *inner.decoder], [*theirs.encoder, *theirs.decoder], strict=True):
        names = ("attention",) if other.queries is None else ("encoded_attention", "previous_attention")
        modules += zip((getattr(mine, name) for name in names), other.attentions, strict=True)
        norms = [name.replace("attention", "norm") if other.queries else "attention_norm" for name in names]
        modules += zip((getattr(mine, name) for name in [*norms, "feedforward_norm"]), other.norms, strict=True)
        modules += [(mine.feedforward[0], other.widen), (mine.feedforward[3], other.narrow)]
        if other.queries is not None:
            yield mine.query, other.queries.weight
    for mine, other in modules:
        counterparts = dict(other.named_parameters())
        for name, parameter in mine.named_parameters():
            yield parameter, counterparts[name]


def training_step(network: nn.Module, tokens: Tensor, optimizer: torch.optim.Optimizer, clip: float) -> Step:
    network.train()

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(network(tokens), tokens).backward()
        nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()

    return step


def kept_for_backward(network: nn.Module, tokens: Tensor) -> float:
    """MB of the tensors a training forward pass keeps, the parameters among them."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = F.mse_loss(network.train()(tokens), tokens)  # what it keeps lives as long as the loss
    del loss
    return sum(sizes.values()) / 1e6


def check(ours: nn.Module, theirs: Opponent, tokens: Tensor) -> None:
    """Gives the opponent our weights and sees that outputs and gradients are the same."""
    same = list(pairs(ours, theirs))
    if len({id(one) for one, _ in same}) != len(list(theirs.parameters())):
        raise SystemExit("training_step: the two networks do not have the same parameters")
    with torch.no_grad():
        for mine, other in same:
            other.copy_(mine)
    prove_equal(ours.eval()(tokens).detach(), theirs.eval()(tokens).detach(), "training_step")
    # In float64, because where a ReLU's input is next to 0, rounding decides whether a gradient passes.
    for network in (ours, theirs):
        F.mse_loss(network.double()(tokens[:2].double()), tokens[:2].double()).backward()
    for mine, other in same:
        scale = other.grad.abs().max()
        prove_equal(mine.grad / scale, other.grad / scale, "gradients of training_step", tolerance=1e-9)
    for network in (ours, theirs):
        network.float().zero_grad()


def multiplications(network: nn.Module, tokens: Tensor) -> float:
    """Floating-point operations of the matrix products of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        F.mse_loss(network.eval()(tokens), tokens).backward()
    return float(counter.get_total_flops())


def rows(quick: bool, turns: int = 9) -> list[Row]:
    torch.manual_seed(0)
    model = OmegaConf.load(CONF / "model" / "uniad.yaml")
    clip = OmegaConf.load(CONF / "trainer" / "default.yaml").gradient_clip_val
    ours, theirs = instantiate(model, channels=CHANNELS), Opponent(model)
    tokens = torch.rand(4 if quick else BATCH, model.grid[0] * model.grid[1], CHANNELS)
    check(ours, theirs, tokens)
    settings = instantiate(OmegaConf.load(CONF / "optimizer" / "adamw.yaml"))
    steps = {
        name: training_step(network, tokens, settings(network.parameters()), clip)
        for name, network in (("ours", ours), ("theirs", theirs))
    }
    in_turn(steps, repeats=1)
    seconds = in_turn(steps, repeats=3 if quick else turns)
    bound = bound_of_products(multiplications(theirs, tokens))
    size = f"batch {len(tokens)}"
    return [
        compare(f"training step of UniAD, {size}: torch's own layers", seconds["ours"], seconds["theirs"], TARGET),
        compare(
            "  the most to be had: its products at the speed of one alone", [bound] * len(seconds["theirs"]),
            seconds["theirs"],
        ),
        compare(
            f"  kept for the backward pass, {size}", [kept_for_backward(ours, tokens)],
            [kept_for_backward(theirs, tokens)], unit="MB",
        ),
    ]  # fmt: skip


def bound_of_products(operations: float) -> float:
    """Seconds of so many operations at the speed of one large product."""
    square = torch.randn(2048, 2048)
    return operations * min(in_turn({"product": lambda: square @ square}, repeats=5)["product"]) / (2 * 2048**3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that it runs: batch 4, 3 turns")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of torch; all cores where not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(machine())
    for row in rows(options.quick, options.turns):
        unit, target = row["unit"], f", target {row['target']}" if row["target"] else ""
        print(f"{row['row']}: ours {row['ours']:.3g} {unit}, opponent {row['opponent']:.3g} {unit}")
        print(f"    ratio {row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}){target}")


if __name__ == "__main__":
    main()
