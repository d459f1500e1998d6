"""Subnets, bridges, ports, isolation."""
