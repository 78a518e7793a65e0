"""What is wrong with a data set before it is trained on: its files, its labels, its splits."""
