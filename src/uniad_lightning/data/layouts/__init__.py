"""How data sets lie on a disk: each layout lists its images as records."""
