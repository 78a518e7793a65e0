"""The training loop, its exact state and its caches."""
