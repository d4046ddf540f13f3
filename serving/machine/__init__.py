"""The machine: its devices, and processes that leave nothing behind."""
