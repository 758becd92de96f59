"""One file per page; `navigation.py` lists them."""
