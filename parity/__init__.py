"""Compare numpy_gpt with torch_gpt: values, gradients, training, generated tokens, speed."""
