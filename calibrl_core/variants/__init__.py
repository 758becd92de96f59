"""Comparison of updates: that of a run beside those of other settings, from the same weights and rollouts."""
