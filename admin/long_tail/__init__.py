"""Providers with an API that nothing here speaks, reached through LiteLLM in a process of its own. Only `worker` imports LiteLLM.

Its import takes seconds and hundreds of megabytes, and its calls block; so the gateway sends such calls to that process as it sends others
to other servers, and everything that it does for a call (deadlines, cancelling, retries, streams that end truthfully, bills) is the same.
"""
