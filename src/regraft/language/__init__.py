"""Messages in other languages than English, which stays their source."""
