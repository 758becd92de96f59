"""Signed messages to URLs of a project."""
