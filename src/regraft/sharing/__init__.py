"""A trained network for others: put on the hub and fetched from there, signed and verified."""
