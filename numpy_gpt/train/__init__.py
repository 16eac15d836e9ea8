"""Train a model: the command, its loop, and a run's files."""
