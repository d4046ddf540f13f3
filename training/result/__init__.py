"""The result of a run: the adapter, merged weights, the parity reference."""
