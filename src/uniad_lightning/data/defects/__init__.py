"""Synthetic defects: what methods learn from that want defective images without having any."""
