"""Tensors of a file and slots of a network brought together, every one accounted for."""
