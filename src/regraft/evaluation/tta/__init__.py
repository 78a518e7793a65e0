"""Which views of an image a run's validation images say are worth their time."""
