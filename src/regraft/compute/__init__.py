"""How a network runs fast on this machine; knows nothing of names and files."""
