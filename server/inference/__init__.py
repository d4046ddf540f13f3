"""From a model's name to the engine's bytes.

ask       one request to an engine
answer    its answer, as routes send it on
visible   which models a caller may name
metrics/  what is counted
"""
