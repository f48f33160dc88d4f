"""What Redis does for a reader, in one reply where single commands would have two each."""

from __future__ import annotations

from typing import Final

LOOK: Final = """
local stand = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'cells_expired')
if stand[1] == ARGV[1] and stand[2] == ARGV[2] then return {} end
local found = {redis.call('HGETALL', KEYS[1])}
if stand[1] ~= ARGV[1] then return found end
found[2] = redis.call('LRANGE', KEYS[2], ARGV[3], -1)
found[3] = redis.call('LRANGE', KEYS[3], ARGV[4], -1)
found[4] = redis.call('ZRANGE', KEYS[5], '(' .. ARGV[2], '+inf', 'BYSCORE')
found[5] = redis.call('ZRANGE', KEYS[6], '(' .. ARGV[2], '+inf', 'BYSCORE')
if stand[3] ~= ARGV[5] then found[6] = redis.call('SMEMBERS', KEYS[4]) end
return found
"""
"""Server-side: nothing if the ledger stands where it stood (ARGV: epoch and seq), else it and, in the same epoch, what
is new: states, cohorts (ARGV: how many are known), touched minutes and flow runs, and all days if some may have
gone (ARGV: up to where they had been put away)."""

STILL: Final = """
local moved = {}
if table.concat(redis.call('HGETALL', KEYS[1]), ' ') ~= ARGV[1] then moved[1] = 0 end
for at = 2, #KEYS do
  local stand = redis.call('HMGET', KEYS[at], 'epoch', 'seq')
  if stand[1] ~= ARGV[2 * at - 2] or stand[2] ~= ARGV[2 * at - 1] then moved[#moved + 1] = at - 1 end
end
return moved
"""
"""Server-side: the numbers, from 0 on, of those keys that do not say what they said: the first one a hash (all of it,
in words, is the first of ARGV), the others ledgers (ARGV: epoch and seq of each)."""

READ_SCOPE: Final = """
local found, fields_of = {}, {}
for at = 1, #KEYS do
  local size = tonumber(ARGV[at + 1])
  local fields = fields_of[size]
  if not fields then
    fields = {}
    for child = 1, size do fields[child] = ARGV[1] .. (child - 1) end
    fields_of[size] = fields
  end
  local cells = redis.call('HMGET', KEYS[at], unpack(fields))
  for child = 1, size do
    if cells[child] then
      found[#found + 1] = (at - 1) * 10 + child - 1
      found[#found + 1] = cells[child]
    end
  end
end
return found
"""
"""Server-side: of pages (KEYS) the cells of one scope (the first of ARGV; then how many buckets each page has): for
each bucket that has any a number, ten times that of its page and where it stands there, and they. Most have none: to
say so of each takes longer than all else."""
