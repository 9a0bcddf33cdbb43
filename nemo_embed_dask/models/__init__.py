"""Models: their directories, their cards (what the files say about the model), and their weights."""
