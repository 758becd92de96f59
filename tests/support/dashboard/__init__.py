"""Helpers for tests of the dashboard: its pages in Streamlit's test runner, on the real API and a database."""
