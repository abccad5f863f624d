"""Answers that rest on documents: what is searched for, how passages are put before a model, and how its marks become citations."""
