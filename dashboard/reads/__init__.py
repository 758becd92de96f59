"""Reads of the API on behalf of the viewer."""
