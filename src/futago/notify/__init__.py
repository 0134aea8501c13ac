"""Status to people."""
