"""What guests start from."""
