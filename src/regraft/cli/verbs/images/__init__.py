"""Commands about images that nothing was trained on yet."""
