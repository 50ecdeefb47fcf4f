"""Commands of tools: within bubblewrap, or as plain processes where the operator has allowed that; always bounded."""
