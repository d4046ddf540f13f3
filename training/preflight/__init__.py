"""What must hold before a run starts, without torch."""
