"""Files behind addresses: listed once, fetched when they are decoded."""
