"""Uploaded files: stored, checked, read."""
