"""APIs that clients speak here beside OpenAI's chat, each behind `gateway.front`."""
