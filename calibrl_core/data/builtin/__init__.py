"""Datasets that the package generates: digits and geometry."""
