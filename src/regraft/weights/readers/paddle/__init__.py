"""PaddlePaddle's files."""
