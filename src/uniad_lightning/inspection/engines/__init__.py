"""What runs a detector: a checkpoint with torch, or an exported file."""
