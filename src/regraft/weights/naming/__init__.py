"""What the names of tensors say: layers, roles, spellings of one network."""
