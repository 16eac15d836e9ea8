"""Measure a model on text."""
