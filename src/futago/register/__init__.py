"""The third vote: a data-less register with compare-and-set."""
