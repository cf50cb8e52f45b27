"""Other people's frameworks, running inside a handler. Each module imports its framework."""
