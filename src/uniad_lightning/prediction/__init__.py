"""Many images: where they come from, their results as rows and pictures, in one or several processes."""
