"""A trained detector for one image: score, decision, regions."""
