"""Text to tokens, tokens to windows."""
