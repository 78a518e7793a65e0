"""What a newcomer meets first: the groups and examples of `--help`."""
