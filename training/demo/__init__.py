"""The embedded base model and its example data: generated locally, without a download."""
