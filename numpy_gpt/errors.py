"""Define the errors that invalid input raises."""


class GPTError(ValueError):
    """Report invalid input; the message names the file or argument, the fault and the remedy

    Example:
        >>> import numpy_gpt
        >>> try:
        ...     numpy_gpt.Config(n_layer=0)
        ... except numpy_gpt.GPTError as e:
        ...     print(e)
        n_layer is 0: it must be a whole number of at least 1.
    """


class CheckpointError(GPTError):
    """Report that weights are missing, or that the content of a checkpoint file is invalid

    Example:
        >>> import numpy_gpt
        >>> try:
        ...     numpy_gpt.load("no/such/directory")
        ... except numpy_gpt.CheckpointError as e:
        ...     print("load it from elsewhere")
        load it from elsewhere
    """
