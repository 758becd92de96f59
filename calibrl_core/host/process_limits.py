"""The time limit for the end of a killed child process, shared by the trainer and the service."""

REAP_SECONDS = 30.0  # a killed process that has not ended by then is stuck in the kernel
