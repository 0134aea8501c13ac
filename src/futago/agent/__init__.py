"""The program on a managed host."""
