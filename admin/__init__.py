"""Assembly and control plane: wiring, settings, REST, command line."""
