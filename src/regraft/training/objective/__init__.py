"""What a stage minimises, and how: losses, weights, optimizers, rates."""
