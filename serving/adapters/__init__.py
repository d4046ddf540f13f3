"""Adapter directories: read, checked, imported."""
