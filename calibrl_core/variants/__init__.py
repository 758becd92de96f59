"""Comparison of updates: that of a step beside those of other settings and algorithms, from the same weights and rollouts."""
