"""How good a search is: measures over questions with known answers, intervals, comparisons; and whether cited sentences hold."""
