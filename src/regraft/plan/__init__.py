"""What trains in each stage, what is frozen, and the proof of it."""
