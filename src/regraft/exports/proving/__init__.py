"""What is written is what predicted: the same images through both."""
