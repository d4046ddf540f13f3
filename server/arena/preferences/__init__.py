"""Ratings as pairs to train on, and as an export."""
