"""Images varied: moved, coloured, mixed."""
