"""Texts to token ids: on the host by Hugging Face, on a GPU by cuDF; and windows of long documents."""
