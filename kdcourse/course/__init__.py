"""Notebooks as data: find the lessons, run them, and show what came out."""
