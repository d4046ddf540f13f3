"""The vLLM process that we run: started, supervised, queried, restarted."""
