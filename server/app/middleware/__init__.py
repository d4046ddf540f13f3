"""What every request passes, one class a module."""
