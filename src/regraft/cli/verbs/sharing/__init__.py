"""Verbs that share a trained network: on the hub, and signed."""
