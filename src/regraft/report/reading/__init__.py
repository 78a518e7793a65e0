"""What the report reads of a run folder."""
