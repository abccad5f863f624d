"""What happens after a failure: classes of failures, breakers, retries, fallbacks. Pure, but for `health`'s own memory."""
