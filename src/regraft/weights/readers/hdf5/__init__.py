"""HDF5, read without its library; rare files are copied by it, in a sandbox."""
