"""A trained network as one file that other programs run: pixels in, names out, proven before it is written."""
