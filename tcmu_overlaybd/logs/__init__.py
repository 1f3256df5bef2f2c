"""The log of a process that runs for long: its formats, its rate limit, what it counts."""
