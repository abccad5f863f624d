"""Answers that were given before: the exact cache, the one by meaning, and what both stand on. `stage` is the way of a call through them.

Nothing here but `policy` is imported before a model has a cache.
"""
