"""What every command needs from the operating system: exit codes, signals, files."""
