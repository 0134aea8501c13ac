"""The floating IP."""
