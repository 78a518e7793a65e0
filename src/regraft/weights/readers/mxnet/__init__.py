"""Files of MXNet."""
