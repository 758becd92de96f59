"""Benchmark of the API and of its ingestion against MLflow's tracking server: `python -m bench.api`."""
