"""A run as a process with files: signals, checkpoints, samples, standby."""
