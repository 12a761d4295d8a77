"""bot-bottle runs a coding agent in a bottle: isolated, with one door, and with a person who decides."""

__version__ = "0.1.0.dev0"
