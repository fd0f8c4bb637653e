"""Many runs: their devices, hyperparameter search, and the table over them."""
