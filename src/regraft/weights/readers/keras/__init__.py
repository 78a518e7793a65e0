"""Keras's files."""
