"""init, join, enrol; certificate authority, settings, units."""
