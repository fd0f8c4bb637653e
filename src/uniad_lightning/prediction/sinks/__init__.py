"""Where rows go besides the files of the results, one file a kind, and how they get there at least once."""
