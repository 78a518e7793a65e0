"""Predictions, measures, golden probes."""
