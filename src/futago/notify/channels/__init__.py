"""One module per way to reach people."""
