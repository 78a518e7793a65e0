"""What is looked at before a run: does it fit, how long, which rate, are the images readable."""
