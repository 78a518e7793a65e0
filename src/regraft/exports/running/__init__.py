"""A sealed file, run by onnxruntime. Needs no torch."""
