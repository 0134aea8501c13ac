"""Stopping the other member by force."""
