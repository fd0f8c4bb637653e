"""Every file of a data set looked at before a training: what is wrong, where, and what to do."""
