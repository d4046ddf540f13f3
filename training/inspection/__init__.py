"""Looks at examples before any training: a report of a file, and what of each example is learned. Loads no weights."""
