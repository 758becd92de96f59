"""Benchmark of the dashboard against an empty Streamlit page and TensorBoard: `python -m bench.dashboard`."""
