"""One folder a page: page, calls, texts, render, state, its script and style sheet."""
