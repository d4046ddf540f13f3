"""What a run on a file will take."""
