"""The errors that invalid input raises."""


class GPTError(ValueError):
    """Invalid input; the message names the file or argument, what is wrong with it, and what to do

    Example:
        >>> import numpy_gpt
        >>> try:
        ...     numpy_gpt.Config(n_layer=0)
        ... except numpy_gpt.GPTError as e:
        ...     print(e)
        n_layer is 0: it must be a whole number of at least 1.
    """


class CheckpointError(GPTError):
    """Weights are missing, or the content of a checkpoint file is invalid

    Example:
        >>> import numpy_gpt
        >>> try:
        ...     numpy_gpt.load("no/such/directory")
        ... except numpy_gpt.CheckpointError as e:
        ...     print("load it from elsewhere")
        load it from elsewhere
    """
