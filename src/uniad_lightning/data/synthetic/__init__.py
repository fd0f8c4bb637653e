"""The synthetic data set of the demo: images of six categories with defects, drawn from a seed."""
