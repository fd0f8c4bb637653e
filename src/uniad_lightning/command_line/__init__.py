"""The command `uniad`: its words, its commands, and what it says of a mistake."""
