"""The proof that numpy_gpt and torch_gpt are the same."""
