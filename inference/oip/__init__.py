"""The Open Inference Protocol (V2), as KServe and Triton have it: REST with JSON and binary tensors, model repository, gRPC."""
