"""The server that the agent asks for help: MCP over HTTP at a loopback address of the bottle, in a process of its own."""
