"""What every page hangs in: shell, session, styles and scripts."""
