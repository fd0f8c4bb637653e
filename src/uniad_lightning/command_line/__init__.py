"""The command `uniad`: parsing its arguments, running its commands, and explaining mistakes."""
