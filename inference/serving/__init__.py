"""Predictions of classic models: values in, a strict look at them, a run in a batch of whoever waits, an answer with its id."""
