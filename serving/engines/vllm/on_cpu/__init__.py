"""vLLM on a CPU, as a process of its own."""
