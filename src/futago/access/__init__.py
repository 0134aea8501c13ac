"""Users, sessions, tokens, audit."""
