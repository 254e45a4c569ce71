"""What an answer holds: tool calls among its text, and JSON of an asked shape. Pure, like the core."""
