"""Diagnosis of a run from its losses."""
