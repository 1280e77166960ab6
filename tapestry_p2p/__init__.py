"""Tapestry: train one open model together, without a server and without handing over data."""

__version__ = "0.1.0"
