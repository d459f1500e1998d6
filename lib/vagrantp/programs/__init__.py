"""Programs that stand alone: one file each, which needs the standard library only."""
