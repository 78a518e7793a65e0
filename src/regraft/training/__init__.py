"""The loop, exact state, caches of frozen features."""
