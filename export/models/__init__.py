"""The model families, one file each, and every published architecture by name."""
