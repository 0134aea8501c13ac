"""The routes of /api/v1, one room per subject."""
