"""8-bit integers instead of floats, as far as the answers stay what they were."""
