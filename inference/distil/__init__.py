"""A small model learnt from the recorded answers of a large one, to answer in its place where it is sure."""
