"""Where images and their labels are listed."""
