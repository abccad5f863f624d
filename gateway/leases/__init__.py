"""Leases: numbers that many processes share and none can overrun, lent out in slices."""
