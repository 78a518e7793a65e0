"""Images of a split in the report: errors, and some that are right."""
