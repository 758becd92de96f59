"""The dashboard beside an empty Streamlit page and TensorBoard: `python -m bench.dashboard`."""
