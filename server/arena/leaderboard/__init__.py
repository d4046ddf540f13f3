"""Strengths of models from ratings."""
