"""Graft new heads and foreign weights onto pretrained vision models, fine-tune them in stages, and know what took."""
