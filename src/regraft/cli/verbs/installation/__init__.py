"""Commands about regraft's own installation."""
