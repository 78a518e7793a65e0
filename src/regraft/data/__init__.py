"""Folders of images -> checked samples -> batches of pixels."""
