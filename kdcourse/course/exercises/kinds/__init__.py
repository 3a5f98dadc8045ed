"""Exercises that ask for more than a function: a test, a diagnosis, an experiment, a repair, a witness."""
