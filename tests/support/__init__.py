"""What several tests share: fabricated data sets, settings of the smallest model, oracles."""
