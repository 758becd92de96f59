"""Signed messages to addresses of a project."""
