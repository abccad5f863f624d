"""Models that are routers: a classic model reads the question, and another model answers it."""
