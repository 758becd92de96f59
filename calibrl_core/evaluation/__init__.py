"""Accuracy of a policy on validation data, and its distance to the experts."""
