"""Files of TensorFlow Lite."""
