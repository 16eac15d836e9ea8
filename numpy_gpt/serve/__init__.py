"""Serve a model over HTTP: continuous batching, OpenAI's completions API, and a page to write with it."""
