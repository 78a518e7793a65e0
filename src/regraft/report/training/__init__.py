"""The training part of the report: stages, curves, and the proof of what was frozen and what moved."""
