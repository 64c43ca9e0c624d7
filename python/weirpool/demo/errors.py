"""The one exception that ends the demo with a line instead of a traceback."""


class DemoError(Exception):
    """What was asked cannot be done; the text says why, in one line."""
