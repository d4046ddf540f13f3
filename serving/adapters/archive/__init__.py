"""Archives that clients upload, unpacked within bounds."""
