"""Tools of MCP servers. The SDK is loaded when a server is first asked."""
