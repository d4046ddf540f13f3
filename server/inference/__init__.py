"""Inference requests, from a model's name to the engine's bytes.

ask       sends a request to an engine
answer    its answer as an HTTP response
metrics/  counters and Prometheus metrics
"""
