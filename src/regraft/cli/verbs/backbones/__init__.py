"""Commands that help to choose a backbone."""
