"""The web UI and the API."""
