"""From a request to a checked run directory."""
