"""Exit statuses of the command `uniad`: what a script may act on."""

DONE, FAILED, MISTAKE, INTERRUPTED, CLOSED = 0, 1, 2, 130, 141
