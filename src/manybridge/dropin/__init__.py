"""Files that an existing application puts in place of its own; each is complete by itself."""
