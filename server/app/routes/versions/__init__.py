"""Adapters, aliases, engines and where a tuned model comes from."""
