"""From records in all supported formats to examples."""
