"""Pixels decoded once, kept in memory or on the disk, and given out in batches."""
