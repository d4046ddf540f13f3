"""Which engine has which model, and how it gets there."""
