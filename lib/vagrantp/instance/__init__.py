"""Who an instance is, what it keeps, who is trusted."""
