"""Audit of experts: measurements, verdicts, restatements, and the summary."""
