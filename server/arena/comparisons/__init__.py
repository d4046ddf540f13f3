"""Two answers to one prompt: drawn, generated, stored."""
