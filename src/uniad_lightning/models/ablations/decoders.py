"""The decoders that the paper compares with its own: what the two attentions of a layer take (Fig. A1, appendix C.2).

Learned queries, the encoder's output and the previous layer's output are fused by two attentions, and the learned
queries have to be the query of one of them. That leaves six designs. (a) is the one of Sec. 3.2, which is written out
as `layers.transformer.DecoderLayer`; (b) and (f) are the other two with what the text says (a), (b) and (f) have in
common. Beyond that only the figure shows which letter is which, and not the text: (b) to (f) are here in the order of a
systematic listing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.models.kernels.dropout import Dropout
from uniad_lightning.models.layers.transformer import FeedForward, LayerSizes, MakeAttention

Inputs = tuple[str, str]  # of an attention: whose tokens are its query, and whose its key and value


class Design(NamedTuple):
    """What the attentions of a decoder layer take.

    One of `learned` (queries of the layer's own), `encoded` (the encoder's output), `previous` (the previous layer's
    output) and, in the second attention, `fused` (the first attention's output, with its residual and LayerNorm).

    Attributes:
        first: of the first attention.
        second: of the second attention.
        start: what replaces `previous` in the first layer.
    """

    first: Inputs
    second: Inputs
    start: str

    def layer(self, index: int) -> tuple[Inputs, Inputs]:
        """The inputs of the first and the second attention of the layer at `index`."""
        if index > 0:
            return self.first, self.second
        return self._at_start(self.first), self._at_start(self.second)

    def _at_start(self, inputs: Inputs) -> Inputs:
        query, source = (self.start if name == "previous" else name for name in inputs)
        return query, source


DESIGNS = {
    "a": Design(first=("learned", "encoded"), second=("fused", "previous"), start="encoded"),
    "b": Design(first=("learned", "previous"), second=("fused", "encoded"), start="encoded"),
    "c": Design(first=("learned", "encoded"), second=("previous", "fused"), start="encoded"),
    "d": Design(first=("learned", "previous"), second=("encoded", "fused"), start="encoded"),
    "e": Design(first=("previous", "encoded"), second=("learned", "fused"), start="encoded"),
    "f": Design(first=("encoded", "previous"), second=("learned", "fused"), start="encoded"),
    # The vanilla transformer's, self-attention and cross-attention (appendix B.1): queries in the first layer alone, or
    # the encoder's output in their place (Sec. 4.6).
    "one_query": Design(first=("previous", "previous"), second=("fused", "encoded"), start="learned"),
    "no_query": Design(first=("previous", "previous"), second=("fused", "encoded"), start="encoded"),
}


class DesignedDecoderLayer(nn.Module):
    """A decoder layer of any design: two attentions with `inputs`, and a feed-forward network.

    Parts have the names that they have in `DecoderLayer`, whatever their inputs, so that checkpoints look alike.
    `query` is None where no attention takes learned queries.
    """

    def __init__(
        self, sizes: LayerSizes, *, inputs: tuple[Inputs, Inputs], attentions: tuple[MakeAttention, MakeAttention]
    ):
        super().__init__()
        self.inputs = inputs
        learns = any("learned" in pair for pair in inputs)
        self.query = nn.Parameter(torch.randn(sizes.num_tokens, sizes.dim)) if learns else None
        self.encoded_attention = attentions[0]()
        self.encoded_norm = nn.LayerNorm(sizes.dim)
        self.previous_attention = attentions[1]()
        self.previous_norm = nn.LayerNorm(sizes.dim)
        self.feedforward = FeedForward(sizes)
        self.feedforward_norm = nn.LayerNorm(sizes.dim)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, previous: Tensor, encoded: Tensor, position: Tensor) -> Tensor:
        """The previous layer's output and the encoder's output, both (B, N, E) -> (B, N, E)."""
        tokens = {"previous": previous, "encoded": encoded}
        if self.query is not None:
            learned = self.query[None]  # (1, N, E): the same for every image, so projected once
            # Where they attend to each other, each image has dropout of its own.
            tokens["learned"] = learned.expand_as(encoded) if ("learned", "learned") in self.inputs else learned
        (query, source), (second_query, second_source) = self.inputs
        x = self.encoded_attention(tokens[query], tokens[source], position)  # (B, N, E)
        tokens["fused"] = self.encoded_norm(tokens[query] + self.dropout(x))
        x = self.previous_attention(tokens[second_query], tokens[second_source], position)  # (B, N, E)
        x = self.previous_norm(tokens[second_query] + self.dropout(x))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


def designed_layers(
    design: str, count: int, sizes: LayerSizes, *, attentions: tuple[MakeAttention, MakeAttention]
) -> list[nn.Module]:
    """`count` decoder layers of a design; `attentions` make the first and the second attention of a layer.

    Raises InputError for an unknown design.
    """
    if not isinstance(design, str) or design not in DESIGNS:
        raise InputError(
            f"model.decoder={design!r} is unknown; expected one of {', '.join(DESIGNS)}."
            f"{did_you_mean(str(design), DESIGNS)}"
        )
    inputs = map(DESIGNS[design].layer, range(count))
    return [DesignedDecoderLayer(sizes, inputs=one, attentions=attentions) for one in inputs]
