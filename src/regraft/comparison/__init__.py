"""Runs compared: two on the same images, image by image, and the recipes of many."""
