"""The command line. `entry.main` is the way in; it decides what is imported at all."""
