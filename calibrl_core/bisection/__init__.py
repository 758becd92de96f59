"""Bisection of the checkpoints of a training: where a probe on validation data became worse, and what to change."""
