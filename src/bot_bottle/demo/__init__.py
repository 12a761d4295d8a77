"""What `bot-bottle demo` brings along: a small repository with a bug, and the script of a model that
repairs it."""
