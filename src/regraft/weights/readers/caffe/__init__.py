"""Caffe's files."""
