"""How good a model is on the images of a split, with a row for each; and what cannot be asked for."""
