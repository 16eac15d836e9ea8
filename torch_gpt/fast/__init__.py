"""Use PyTorch features that NumPy lacks: compiled, fused and sharded code; and benchmark them."""
