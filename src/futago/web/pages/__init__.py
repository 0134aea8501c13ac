"""The pages, one module per column."""
