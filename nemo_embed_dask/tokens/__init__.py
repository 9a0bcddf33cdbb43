"""Convert texts to token ids, by Hugging Face on the host or by cuDF on a GPU; cut them into windows."""
