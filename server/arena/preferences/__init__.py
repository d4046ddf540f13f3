"""Ratings as preference pairs for training, and their export."""
