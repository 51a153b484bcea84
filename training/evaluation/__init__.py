"""Measure a model on labelled images, and report it."""
