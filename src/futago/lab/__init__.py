"""The pair on one real machine: namespaces as hosts."""
