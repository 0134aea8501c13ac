"""The loop that runs deciders; clock, log, fault types."""
