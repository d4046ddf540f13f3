"""From a queued job to a finished one."""
