"""API keys, callers and roles."""
