"""Weights of a file matched with a network, put into it, and checked."""
