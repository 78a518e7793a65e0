"""Images that belong together and are never divided: whose they are, and splits and folds of whole groups."""
