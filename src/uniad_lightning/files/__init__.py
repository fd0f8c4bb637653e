"""Files on a disk whatever they hold: paths, whole writes, digests, text, and tensors without code."""
