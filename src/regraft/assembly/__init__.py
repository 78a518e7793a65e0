"""A recipe's settings as the parts of a run: its data, its network, what it computes with."""
