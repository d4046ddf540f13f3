"""The subcommands of `tuneloop`, a module each. They print and exit; the packages they call do the rest."""
