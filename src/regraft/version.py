"""The version of regraft, where rooms may read it without the public door."""

__all__ = ["__version__"]

__version__ = "0.2.0"
