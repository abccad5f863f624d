"""The commands of `penstock`, one module each, with `run(arguments) -> exit status`."""
