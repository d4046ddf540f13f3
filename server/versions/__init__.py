"""Tuned models in and out: uploaded, downloaded, published, traced to their job."""
