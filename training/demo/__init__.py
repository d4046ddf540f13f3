"""The embedded base model and its example data: made here, from nothing, without a download."""
