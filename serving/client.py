"""The engine's HTTP client, over its Unix socket: streams bytes through, loads and unloads adapters, translates errors.

It refuses to know who starts the engine and what the bodies mean.
"""
