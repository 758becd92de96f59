"""Dry run of a spec: queue position, memory, warnings."""
