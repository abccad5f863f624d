"""Runtimes behind `embedding.ports.Backend`. Each module imports its heavy library at the top; nobody imports it at start."""
