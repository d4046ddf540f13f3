"""Looks at files and jobs before any training, in child processes."""
