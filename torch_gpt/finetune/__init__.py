"""Fine-tune the twin: to classify texts, or to follow instructions."""
