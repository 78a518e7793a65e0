"""Who writes down what happens in a run."""
