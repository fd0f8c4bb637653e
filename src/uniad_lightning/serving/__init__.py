"""A trained detector over HTTP: `uniad serve`."""
