"""The only package that talks to Redis: keys, stored forms, fenced commits and reads."""
