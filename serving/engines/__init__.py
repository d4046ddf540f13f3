"""Engines behind one protocol, and who has the accelerator."""
