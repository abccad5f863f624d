"""Predictions in bulk: a table in, a table out, exactly once by row key, whatever ends the process in between."""
