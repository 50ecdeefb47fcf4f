"""Python SDK and the `paracle` command, with the embedded stack."""
