"""Dataset: facts made into examples, split without leaking, encoded for training."""
