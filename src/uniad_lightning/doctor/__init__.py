"""`uniad doctor`: whether this machine has what the package needs, a line a check."""
