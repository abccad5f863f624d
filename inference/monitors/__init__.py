"""Monitors: what is searched for, and what there is to find, held against what they were when the monitor was made."""
