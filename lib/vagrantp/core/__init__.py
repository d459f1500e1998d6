"""What knows no instance: processes, files, errors, progress."""
