"""Files and folders on the disk and, under paths of the same kind, inside archives."""
