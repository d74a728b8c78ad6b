"""Hosts and workers that are killed at random moments, and what is there when the next host starts."""
