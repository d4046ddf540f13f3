"""Every setting of a run, its rules, and what `auto` makes of it."""
