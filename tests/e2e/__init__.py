"""Tests of the whole stack; a package, so that fixtures of package scope end with this folder."""
