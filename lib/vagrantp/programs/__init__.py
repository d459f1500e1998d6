"""Programs that stand alone: guard.py and forward.py need the standard library only."""
