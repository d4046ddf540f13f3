"""Who asks, and what they may use.

keys          API keys and what they open
callers       the key behind a request
checkpoints   which projects may use a checkpoint
"""
