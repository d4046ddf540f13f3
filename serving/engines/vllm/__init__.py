"""The vLLM that we run: started, watched, asked, restarted."""
