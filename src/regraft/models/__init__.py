"""Names -> `nn.Module`, its layers and slots; surgery; the model folder."""
