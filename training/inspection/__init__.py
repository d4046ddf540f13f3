"""Inspects examples before any training: a report of a file, and which tokens are trained on. Loads no weights."""
