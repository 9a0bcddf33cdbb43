"""Where a model is, what its files say, and its weights."""
