"""The machine: its devices, and processes that outlive nothing."""
