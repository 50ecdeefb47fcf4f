"""Every model call: providers, retries, streaming, usage and cost."""
