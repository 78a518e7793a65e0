"""The settings of a run: each declared, bounded and described once. Recipes are made of them; no torch here."""
