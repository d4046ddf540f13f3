"""`python -m server` is `tuneloop`."""

from server.cli import main

main()
