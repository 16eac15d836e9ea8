"""The errors that invalid input raises."""


class GPTError(ValueError):
    """Invalid input, with one sentence: which file or argument, what is wrong with it, and what to do."""


class CheckpointError(GPTError):
    """Weights are missing, or a file doesn't hold what it should."""
