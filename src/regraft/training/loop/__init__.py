"""One stage after the other, one step after the other."""
