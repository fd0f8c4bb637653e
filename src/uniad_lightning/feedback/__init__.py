"""What an operator says of predictions: kept with its history, and what it changes, shown before it is taken."""
