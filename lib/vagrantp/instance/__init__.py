"""Who an instance is, what it keeps, what was granted."""
