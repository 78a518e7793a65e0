"""What a delivered network keeps of the images that it was validated on."""
