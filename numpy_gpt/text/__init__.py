"""Turn text into tokens, and tokens into windows."""
