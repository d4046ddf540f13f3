"""Statistics of a file."""
