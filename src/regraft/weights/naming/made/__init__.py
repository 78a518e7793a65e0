"""Layers made of several of the file: queries, keys and values joined, kernels of lengths and directions."""
