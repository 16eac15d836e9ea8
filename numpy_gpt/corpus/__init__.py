"""Make texts to train on: from Wikipedia, from a folder, from Python's own library."""
