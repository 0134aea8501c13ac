"""Futago (双子, "twins"): an operations manager that does not stop, on two ordinary machines."""

__version__ = "0.1.0"
