"""The LLM gateway: keys, routing and the hot path from a client's request to an upstream's last byte."""
