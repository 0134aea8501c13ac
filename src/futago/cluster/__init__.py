"""Who is primary: the pure decision and the programs that carry it out."""
