"""One module per weight format that regraft writes."""
