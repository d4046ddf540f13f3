"""`server` speaks HTTP: tuneloop's gateway in the OpenAI wire format, and the command line that composes everything.

Not to be mistaken for `serving`, which turns model names into tokens and has never heard of HTTP routes. This package
owns keys, errors on the wire, the database and the routes; it never imports torch, transformers or vllm (a test holds
that), so that the gateway starts in a second and stays small.
"""
