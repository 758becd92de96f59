"""The API and its way in, beside MLflow's tracking server: `python -m bench.api`."""
