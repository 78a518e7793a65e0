"""Folders of photos -> checked samples -> batches of pixels."""
