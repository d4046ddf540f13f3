"""Inspects files and jobs before training, in child processes."""
