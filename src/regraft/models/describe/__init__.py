"""What a network is: its description, layers' shapes, outputs."""
