"""Chaos: real servers and processes, one fault after the other, and after each one everything checked.

`python -m tests.chaos --cycles 20`. A *cycle* is one fault, with or without traffic, and then a *quiet point*, at which
nothing is on its way: what the API answers, what Redis holds and what the broker has taken are held against each other.
A *world* is all servers and processes with their data; it lives for some dozens of cycles. Every other one has
retentions, and its producers say what day it is.
"""
