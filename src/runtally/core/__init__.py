"""Pure: no I/O, no clock, no settings. Times are integer µs, `now` is an argument."""
