"""One folder per page: page, calls, texts, render, state, script and style sheet."""
