"""Why a network says what it says: heat maps over images."""
