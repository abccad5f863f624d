"""Another embedding model for a collection that is in use: beside the old one, measured, tried by some keys, then for all."""
