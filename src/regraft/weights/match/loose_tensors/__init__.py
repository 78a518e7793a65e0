"""Tensors that belong to no layer: class tokens, layer scales, bias tables, position embeddings."""
