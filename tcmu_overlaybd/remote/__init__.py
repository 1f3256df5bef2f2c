"""Blobs of registries as sources: what joins ``registry`` (talk) and ``native`` (bytes)."""
