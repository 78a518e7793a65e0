"""The model folder: written, read, several as one."""
