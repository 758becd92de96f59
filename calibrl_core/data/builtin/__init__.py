"""Data sets that the package generates: digits and geometry."""
