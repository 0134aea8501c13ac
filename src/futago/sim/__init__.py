"""The pair in a simulated world: the rules and the jury are the real ones, everything else is made up and seeded."""
