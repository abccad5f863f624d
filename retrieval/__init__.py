"""The retrieval plane: documents in, cited answers out."""
