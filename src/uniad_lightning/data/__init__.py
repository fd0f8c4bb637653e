"""Data sets: listing, decoding, batching. Nothing here knows a model."""
