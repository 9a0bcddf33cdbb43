"""The columns that a job copies from its inputs: their names and types over all files."""
