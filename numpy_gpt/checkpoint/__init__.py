"""GPT-2's weights in three formats, each a file here."""
