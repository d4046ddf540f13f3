"""Examples in, adapter directory out. Knows nothing of HTTP, of the engine that serves, or of who asked."""
