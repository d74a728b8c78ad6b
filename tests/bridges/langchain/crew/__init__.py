"""A team's own package, whose functions an agent may use."""
