"""A believable estate of flows and runs, for `runtally up --demo`: the same for the same seed, at any time asked."""
