""".env: its keys, what reads it, what documents it."""
