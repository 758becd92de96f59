"""Several training processes: collectives, process groups, the launcher."""
