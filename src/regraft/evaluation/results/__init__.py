"""What predictions say of an image, whatever computed them. Needs no torch."""
