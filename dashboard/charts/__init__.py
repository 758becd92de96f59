"""Figures and series of the charts."""
