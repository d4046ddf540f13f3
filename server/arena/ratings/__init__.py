"""Verdicts on comparisons: taken, listed, and who may give them."""
