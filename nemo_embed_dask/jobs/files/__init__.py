"""Files at any fsspec address: find, open, lock, read and write them."""
