"""The networks, in plain torch: no Lightning, no Hydra, no data."""
