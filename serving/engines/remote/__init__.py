"""Engines that others run."""
