"""Many images: where they come from, their results as rows and overlays, in one or several processes."""
