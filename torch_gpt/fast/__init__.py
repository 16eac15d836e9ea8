"""What only PyTorch has: compiled, fused and sharded code, and its benchmark."""
