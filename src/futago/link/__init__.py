"""Authenticated frames between our own programs."""
