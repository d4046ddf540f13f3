"""Adapters, aliases, engines and the lineage of tuned models."""
