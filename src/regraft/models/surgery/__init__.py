"""A network for other classes, channels, and sizes."""
