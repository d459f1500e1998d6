"""What this host must be, and its removal of vagrantp."""
