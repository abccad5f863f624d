"""Scoring jobs where they meet the rest: the data folder, processes that work, the command line and REST."""
