"""The whole API, asked for everything that its own document allows, and for what it does not."""
