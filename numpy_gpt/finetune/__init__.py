"""Fine-tune a model: to classify texts, or to follow instructions."""
