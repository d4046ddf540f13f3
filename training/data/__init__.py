"""Files to examples: formats, cleaning, duplicates, splits."""
