"""Provide the computations of torch_gpt to numpy_gpt.serve.engine."""
