"""The checks and measures for the first hours on a GPU: `python -m bench.gpu`, or `make check-gpu`."""
