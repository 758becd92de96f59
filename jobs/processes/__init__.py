"""Child processes without secrets and within limits."""
