"""Networks by name, with or without pretrained weights."""
