"""Shared by all routes and jobs: errors, storable JSON, CSV, child processes, background loops."""
