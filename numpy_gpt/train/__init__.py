"""Train a model: the command, its loop, and a run on disk."""
