"""The same sealed network in the formats of other programs."""
