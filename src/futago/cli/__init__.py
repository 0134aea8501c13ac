"""futago <verb>."""
