"""Engines that are run by someone else."""
