"""Creating a job: from the request to a checked run directory."""
