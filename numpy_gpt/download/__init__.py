"""Fetch the released checkpoints."""
