"""The classic HDF5 file format (what h5py and Keras write by default), parsed from memory.

The HDF5 C library can be made to crash or to hang by damaged metadata, so it does not read a stranger's file: this
is the part of the format that weight files need, over a memoryview, every offset checked and all work counted. Files in
the newer layout raise `NotClassicError`; `hdf5_rewrite` turns those into classic ones in a process of its own.
Source: HDF5 File Format Specification 3.0 (superblocks 0 and 1, object headers 1, symbol tables, B-trees 1, heaps).
"""
