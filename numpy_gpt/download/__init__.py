"""Download the released checkpoints."""
