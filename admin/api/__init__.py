"""The data plane's paths that are not hot: files, uploads, batches, in OpenAI's shape, for virtual keys."""
