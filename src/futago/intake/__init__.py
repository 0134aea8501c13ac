"""Messages: received on both members, processed once."""
