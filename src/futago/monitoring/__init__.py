"""Checks to status."""
