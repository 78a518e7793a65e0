"""Commands that make something new of a run that has finished."""
