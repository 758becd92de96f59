"""Alert rules of projects: evaluated on the metrics that workers ship, and on the progress of jobs."""
