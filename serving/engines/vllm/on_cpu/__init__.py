"""vLLM on a processor, as a process of its own."""
