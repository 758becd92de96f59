"""Rollouts: the engines that sample completions, their filters, and the check against the update."""
