"""From a file, or an array, to the pixels that a network takes."""
