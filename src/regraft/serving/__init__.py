"""A small server: images in, names out, by a sealed file."""
