"""Rows, batches, losses and the trainer."""
