"""Copies of images: candidates by hashes and by features, each then laid over the other."""
