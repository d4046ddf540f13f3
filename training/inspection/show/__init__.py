"""Which tokens of a file are trained on."""
