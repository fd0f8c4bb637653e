"""From files on a disk to batches: which images there are, which are trained on, and what a batch holds."""
