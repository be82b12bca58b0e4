"""Tollgate: usage metering, limits and billing as small functions."""

__version__ = "0.1.0"
