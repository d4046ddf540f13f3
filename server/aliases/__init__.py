"""Aliases: names that stand for a model and can be moved to another.

changes   set, remove, roll back
cache     the aliases in memory
view      the aliases as one caller sees them
"""
