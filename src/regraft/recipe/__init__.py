"""A whole run as YAML: read, checked all at once, written back."""
