"""A network with all that comes before and after it, as one ONNX graph."""
