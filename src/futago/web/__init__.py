"""The faces towards people and programs: pages, the API under /api/v1, the stream of changes."""
