"""Hosts and scopes."""
