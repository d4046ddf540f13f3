"""Comparisons, ratings, campaigns and the leaderboard."""
