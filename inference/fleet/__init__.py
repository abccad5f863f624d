"""Inference engines as processes: declared, started, watched, replaced and ended. `admin.fleet` ties them to the gateway."""
