"""Who calls, and what they may use.

keys          API keys
callers       who makes a request, as FastAPI dependencies
checkpoints   which projects may use a checkpoint
"""
