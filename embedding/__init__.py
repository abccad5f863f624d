"""The embedding engine: tokenise, batch, run, pool. Knows nothing of the planes above it."""
