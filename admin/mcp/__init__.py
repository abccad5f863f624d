"""MCP servers that are reached over HTTP, logins at them, and APIs that are described by OpenAPI. Loaded when one of them is first used."""
