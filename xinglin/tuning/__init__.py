"""Tuning: a base model and examples made into an adapter."""
