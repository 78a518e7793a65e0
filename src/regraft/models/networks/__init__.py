"""The networks that timm does not build, and the names of all."""
