"""What the report takes from the rows of predictions/."""
