"""How fast the package is, against its peers, and how it is known. Not installed with the package."""
