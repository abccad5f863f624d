"""Batches: files of calls that are served in the background, each line a normal call of the key that asked for it."""
