"""Code as in a model's repository: tests copy these files into directories of models, and import them as a reference."""
