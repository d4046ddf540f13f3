"""The middleware, one class per module."""
