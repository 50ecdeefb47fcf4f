"""Tools, behind one permission check that fails closed."""
