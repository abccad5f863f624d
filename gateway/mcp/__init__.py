"""Tools of MCP servers (Model Context Protocol) behind one endpoint: who may call them, what they cost, and where they are.

`admin.mcp` reaches servers over HTTP; those that are programs are started here. Nothing of this is on the way of a model's call.
"""
