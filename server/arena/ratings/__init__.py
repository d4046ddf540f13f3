"""Ratings of comparisons: storing and reading them, and who may give them."""
