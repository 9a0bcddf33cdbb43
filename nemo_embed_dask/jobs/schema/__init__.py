"""Choose the columns that a job copies from its inputs, and convert each input to their types."""
