"""Diagnostics from what is recorded: hours, visits of prompts, verdicts of people."""
