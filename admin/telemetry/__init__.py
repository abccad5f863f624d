"""Traces, metrics, logs and copies of request records, for whoever wants them elsewhere. Loaded by those who switch it on."""
