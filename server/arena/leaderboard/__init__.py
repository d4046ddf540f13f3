"""Leaderboards: strengths of models, computed from ratings."""
