"""Which engine serves which model, and how adapters are loaded."""
