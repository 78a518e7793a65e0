"""What computes a prediction: torch, or onnxruntime from a sealed export that is kept in the cache."""
