"""The commit room, schema and migrations."""
