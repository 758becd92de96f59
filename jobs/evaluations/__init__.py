"""Comparison of evaluated models, and verifier replay."""
