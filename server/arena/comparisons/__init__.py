"""Comparisons of answers to one prompt: drawing models, generating, storing."""
