"""Files of any content: paths, atomic writes, digests, text, packed masks, and tensors without code."""
