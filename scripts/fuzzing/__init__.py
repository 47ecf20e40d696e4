"""Fuzzing: odd inputs for everything that reads what others wrote, and the judge of what comes of them."""
