"""What is said of answers, predictions and searches: labels that come late, scores, comments."""
