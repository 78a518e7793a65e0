"""What the frozen part gives, computed once and kept."""
