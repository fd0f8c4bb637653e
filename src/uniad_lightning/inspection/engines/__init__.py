"""Engines run a detector: a checkpoint with torch, or an exported file."""
