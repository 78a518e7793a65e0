"""The run folder: its paths and its versioned records."""
