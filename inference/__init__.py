"""The serving plane for classic models and supervised engines."""
