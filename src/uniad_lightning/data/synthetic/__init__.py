"""The synthetic data set of the demo: photographs of six products with defects, drawn from a seed."""
