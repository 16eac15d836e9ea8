"""Train the twin with the loop of numpy_gpt.train, on as many GPUs as torchrun starts processes for."""
