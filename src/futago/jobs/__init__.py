"""Trees of jobs to runs on agents."""
