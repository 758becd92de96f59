"""Scheduling: placement of jobs, reservations, used slot-hours."""
