"""Train the twin with the loop of numpy_gpt.train, in one process or in several that torchrun starts."""
