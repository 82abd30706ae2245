"""Recomputing elements from a concrete recipe in a concrete arithmetic, and comparing bits."""
