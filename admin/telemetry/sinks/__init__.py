"""Places that records of requests are sent to."""
