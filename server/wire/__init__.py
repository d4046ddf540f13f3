"""What every route and job shares: errors, JSON that can be stored, CSV, child processes."""
