"""Every model call: providers, streaming, usage and cost."""
