"""The machine around a process: the end of its parent and children, addresses, signatures. Without torch."""
