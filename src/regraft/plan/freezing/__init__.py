"""What trains and what is frozen: selected by name, enforced, and audited."""
