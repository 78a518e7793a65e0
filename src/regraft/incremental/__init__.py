"""New classes for a network that was delivered, from statistics of its features: no old images, no training."""
