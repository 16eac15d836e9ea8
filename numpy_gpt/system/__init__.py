"""Connect commands to the operating system: exit codes, signals, files, locks."""
