"""`server` speaks HTTP: tuneloop's gateway in the OpenAI wire format, and the command line that composes everything.

Not to be confused with `serving`, which turns model names into tokens and knows nothing of HTTP routes. This package
owns keys, API errors, the database and the routes. It never imports torch, transformers or vllm (a test checks this),
so that the gateway starts within a second and stays small.
"""
