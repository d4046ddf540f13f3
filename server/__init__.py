"""`server` speaks HTTP: tuneloop's OpenAI-compatible gateway, and the command line that wires everything together.

Not to be confused with `serving`, which turns model names into tokens and has no HTTP routes. This package owns keys,
API errors, the database and the routes. It never imports torch, transformers or vllm (a test checks this),
so that the gateway starts within a second and stays small.
"""
