"""The `regraft` command: one file per verb."""
