"""Names that stand for a model and can be moved to another.

changes   set, remove, roll back
cache     what every process has in memory
view      what clients are shown
"""
