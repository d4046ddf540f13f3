"""The process that trains: its environment, memory and signals."""
