"""The adapter directory's format, the contract between what trains and what serves: names, hashes and keys.

Standard library alone.

    hashing   which weights a base model has
    names     ids of adapters, and the name that a client uses"""
