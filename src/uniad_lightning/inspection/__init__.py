"""A trained detector applied to an image: score, decision, regions."""
