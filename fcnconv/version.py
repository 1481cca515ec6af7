"""The version of fcnconv, in a module of its own so that every other module can import it from below."""

__version__ = "0.3.0"
