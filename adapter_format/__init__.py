"""The adapter directory: the contract between what trains it, what serves it and what answers for it.

    files      names of its files
    manifest   keys of manifest.json and their types
    names      ids, and the names that clients use
    hashing    which weights a base model has
    disk       how any of our files is written so that nothing is lost

Standard library alone.
"""
