"""TensorFlow's files."""
