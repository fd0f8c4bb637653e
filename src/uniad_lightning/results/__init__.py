"""The results of a run: its folder and its tables."""
