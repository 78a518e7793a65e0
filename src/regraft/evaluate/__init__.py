"""Predictions, metrics and golden probes."""
