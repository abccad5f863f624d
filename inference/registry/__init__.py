"""Models, their versions, the names that lead to one, and the files that they are made of."""
