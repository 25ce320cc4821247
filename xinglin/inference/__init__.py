"""Inference: a base model, with or without an adapter, asked in the words it was tuned with."""
