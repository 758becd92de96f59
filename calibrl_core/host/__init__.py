"""The machine around a process: the end of its parent, time limits, addresses, signatures. Without torch."""
