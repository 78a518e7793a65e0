"""Layers that no name places: by their shapes, and by what beside the order of the file tells them apart."""
