"""Collect labelled images and stage them for training."""
