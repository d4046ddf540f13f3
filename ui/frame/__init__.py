"""What all pages share: shell, session, styles and scripts."""
