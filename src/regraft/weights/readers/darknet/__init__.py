"""Files of Darknet."""
