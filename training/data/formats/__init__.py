"""Records of all known formats to examples."""
