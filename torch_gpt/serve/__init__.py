"""Serve a model over HTTP: numpy_gpt.serve with PyTorch's computations."""
