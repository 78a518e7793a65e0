"""What the file's network does that the model does not, as far as the file tells."""
