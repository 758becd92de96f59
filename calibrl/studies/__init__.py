"""Studies: expansion into jobs, the runner, and the report. Nothing here prints."""
