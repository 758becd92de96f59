"""Which job runs where and when: the scheduler, reservations, used slot-hours."""
