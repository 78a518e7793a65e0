"""Measures of predictions, from arrays alone."""
