"""Guardrails: what may go to a model, and what may come from it."""
