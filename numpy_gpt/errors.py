"""The one exception that a user's mistake raises."""


class GPTError(Exception):
    """One sentence: which file or argument, what is wrong with it, and what to do."""
