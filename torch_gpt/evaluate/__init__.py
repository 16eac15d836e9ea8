"""Measure a model on text: numpy_gpt.evaluate with PyTorch's computations."""
