"""Pickles read as data: nothing is executed."""
