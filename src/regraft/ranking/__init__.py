"""Backbones compared on one's own images, by what a linear classifier makes of their features."""
