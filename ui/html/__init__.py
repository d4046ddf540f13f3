"""HTML that pages share."""
