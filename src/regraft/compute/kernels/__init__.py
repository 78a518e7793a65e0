"""Layers that the processor computes faster than torch does by itself."""
