"""The class of every pixel: read, checked, paired with its image."""
