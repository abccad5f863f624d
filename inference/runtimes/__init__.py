"""What runs models: each kind behind `inference.ports.Runnable`."""
