"""The settings of a run, their rules, and the resolution of `auto`."""
