"""Finds rows that are equal or nearly so: cleaning drops them, and a split keeps them together. Imports no torch."""
