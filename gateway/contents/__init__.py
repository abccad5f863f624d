"""What was asked and answered, for those who switch recording on: redacted, for a while, and never otherwise."""
