"""What the rollout engine of `inference` is connected to here: routes and prompts, request records, webhooks."""
