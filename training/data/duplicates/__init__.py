"""Finds rows that are the same or nearly so: what cleaning drops and a split keeps together. Imports no torch."""
