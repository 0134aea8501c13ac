"""The pair in a simulated world."""
