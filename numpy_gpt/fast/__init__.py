"""Code that exists for speed alone; read it last."""
