"""Servers for the tests: found by URL, started in Docker, or started from packages on this machine."""
