"""The subcommands of `tuneloop`, one module each. They print and exit; the packages they call do the work."""
