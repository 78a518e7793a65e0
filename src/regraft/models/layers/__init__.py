"""Layers by name: listed, cut at, tapped, replaced."""
