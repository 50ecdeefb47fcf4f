"""Every event once: audit, and usage and cost per run."""
