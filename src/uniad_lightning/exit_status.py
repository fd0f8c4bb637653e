"""Exit statuses of the command `uniad`: what a script may act on."""

DONE, FAILED, MISTAKE, DRIFTED, INTERRUPTED, CLOSED = 0, 1, 2, 3, 130, 141
