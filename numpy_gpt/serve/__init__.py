"""Serve a model over HTTP: continuous batching, OpenAI's APIs of completions and chats, and a page."""
