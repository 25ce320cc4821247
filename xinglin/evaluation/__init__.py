"""Evaluation: the same questions to several systems, scored against the facts they were to state."""
