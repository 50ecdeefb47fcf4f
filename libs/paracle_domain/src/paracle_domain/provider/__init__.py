"""Providers and models as manifests: who answers model calls, and by which names."""
