"""Where images and their masks are listed."""
