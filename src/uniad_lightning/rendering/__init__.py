"""What a detector reconstructs, rendered as images, for display alone."""
