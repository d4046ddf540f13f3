"""`training` turns examples into an adapter directory, one process per run. It needs neither server nor engine."""
