"""What runs in a guest, and what it answers over ssh."""
