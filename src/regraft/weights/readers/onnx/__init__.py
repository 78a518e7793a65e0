"""ONNX's files."""
