"""Indexes over the truth: made from it, brought up to date by generation, thrown away and made again when in doubt."""
