"""Asks again what was asked, of something else, and says what would be different."""
