"""Tuned models: upload, download, publishing, lineage."""
