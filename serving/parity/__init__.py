"""Compares an engine's answers with those of the model as it was trained."""
