"""The parts of a page: markup, charts, tables, style."""
