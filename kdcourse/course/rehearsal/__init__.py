"""A class that nobody has to sit in: copies of lessons, answered in known ways, handed out, graded and compared."""
