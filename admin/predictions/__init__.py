"""Where predictions meet the gateway: its keys, limits and ledger on one side, models on the other."""
