"""MLflow's model registry as a source of versions and a place to publish them, through its own client in an environment of its own."""
