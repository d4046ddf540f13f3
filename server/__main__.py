"""`python -m server` is `tuneloop`."""

from server.cli.main import main

main()
