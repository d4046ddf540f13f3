"""What a run leaves: the adapter, merged weights, the parity reference."""
