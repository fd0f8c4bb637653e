"""The decoders of the paper as data: what the two attentions of a decoder layer take (Sec. 3.2, Fig. A1, appendix C.2).

Learned queries, the encoder's output and the previous layer's output are fused by two attentions, and the learned
queries have to be the query of one of them. That leaves six designs. (a) is the one of Sec. 3.2; (b) and (f) are the
other two with what the text says (a), (b) and (f) have in common. Beyond that only the figure shows which letter is
which, and not the text: (b) to (f) are here in the order of a systematic listing.
"""

from typing import NamedTuple

Inputs = tuple[str, str]  # of an attention: whose tokens are its query, and whose its key and value


class Decoder(NamedTuple):
    """What the attentions of a decoder layer take.

    One of `learned` (queries of the layer's own), `encoded` (the encoder's output), `previous` (the previous layer's
    output) and, in the second attention, `found` (what became of the first one's query). In the first layer `start` is
    in the place of `previous`.
    """

    first: Inputs
    second: Inputs
    start: str

    def layer(self, index: int) -> tuple[Inputs, Inputs]:
        """What the first and the second attention of the layer at `index` take."""
        if index > 0:
            return self.first, self.second
        return self._at_start(self.first), self._at_start(self.second)

    def _at_start(self, inputs: Inputs) -> Inputs:
        query, source = (self.start if name == "previous" else name for name in inputs)
        return query, source


DECODERS = {
    # Queries in every layer; in the first one the encoder's output is the previous one, too (R).
    "a": Decoder(first=("learned", "encoded"), second=("found", "previous"), start="encoded"),
    "b": Decoder(first=("learned", "previous"), second=("found", "encoded"), start="encoded"),
    "c": Decoder(first=("learned", "encoded"), second=("previous", "found"), start="encoded"),
    "d": Decoder(first=("learned", "previous"), second=("encoded", "found"), start="encoded"),
    "e": Decoder(first=("previous", "encoded"), second=("learned", "found"), start="encoded"),
    "f": Decoder(first=("encoded", "previous"), second=("learned", "found"), start="encoded"),
    # The vanilla transformer's, self-attention and cross-attention (appendix B.1): queries in the first layer alone, or
    # the encoder's output in their place (Sec. 4.6).
    "one_query": Decoder(first=("previous", "previous"), second=("found", "encoded"), start="learned"),
    "no_query": Decoder(first=("previous", "previous"), second=("found", "encoded"), start="encoded"),
}
