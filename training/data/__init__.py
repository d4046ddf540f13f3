"""From files to examples: formats, cleaning, duplicates, splits."""
