"""report.html, a function of the run folder."""
