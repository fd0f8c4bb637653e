"""Checkpoints of the reference implementation."""
