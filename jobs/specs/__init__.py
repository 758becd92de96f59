"""Checks of a job spec against the database and the file system."""
