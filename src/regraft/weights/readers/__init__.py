"""One module per weight format: `sniff` and `read`."""
