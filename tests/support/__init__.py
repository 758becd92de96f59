"""Helpers that tests of several folders share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
API_KEY = "a-key-for-tests-of-32-characters"
