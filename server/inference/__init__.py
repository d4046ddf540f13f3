"""Inference requests, from a model's name to the engine's bytes.

ask       sends a request to an engine
answer    its answer as an HTTP response
visible   which models a caller can see
metrics/  counters and Prometheus metrics
"""
