"""One rollout engine: which of two versions a call gets, what their outcomes say, and what follows from it."""
