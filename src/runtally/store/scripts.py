"""What Redis does for a reader, in one reply where single commands would have two each."""

from __future__ import annotations

from typing import Final

from ..core.levels import MINUTE_US
from .records import EXPECTED_AT

LOOK: Final = """
local stand = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'cells_expired')
if stand[1] == ARGV[1] and stand[2] == ARGV[2] then return {} end
local found = {
  redis.call('HGETALL', KEYS[1]),
  redis.call('LRANGE', KEYS[2], ARGV[3], -1),
  redis.call('LRANGE', KEYS[3], ARGV[4], -1),
}
if ARGV[1] == '' then
  found[4] = redis.call('SMEMBERS', KEYS[4])
else
  found[4] = redis.call('ZRANGE', KEYS[5], '(' .. ARGV[2], '+inf', 'BYSCORE')
  found[5] = redis.call('ZRANGE', KEYS[6], '(' .. ARGV[2], '+inf', 'BYSCORE')
  if stand[3] ~= ARGV[5] then found[6] = redis.call('SMEMBERS', KEYS[4]) end
end
return found
"""
"""Server-side: nothing if the ledger stands where it stood (ARGV: epoch and seq, empty at first), else it and what is
new: states, cohorts (ARGV: how many are known), touched minutes and flow runs, and all days if some may have gone
(ARGV: up to where they had been put away); at first all days in their place."""

READ: Final = """
local found, stand = {}, redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if stand[1] == ARGV[1] and stand[2] == ARGV[2] then return found end
for at = 2, #KEYS do
  local field = ARGV[at + 1]
  found[at - 1] = field == '' and redis.call('HGETALL', KEYS[at]) or redis.call('HGET', KEYS[at], field)
end
return found
"""
"""Server-side: of each hash (KEYS but the first) a field (ARGV but the first two), or all if that is empty; nothing if
the ledger stands as said."""

READ_MINUTES: Final = f"""
local wanted, found, stand = {{}}, {{}}, redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if stand[1] == ARGV[1] and stand[2] == ARGV[2] then return found end
local pairs = redis.call('HGETALL', KEYS[2])
for at = 3, #ARGV do wanted[tonumber(ARGV[at])] = true end
for at = 1, #pairs, 2 do
  if wanted[math.floor(struct.unpack('<i8', pairs[at + 1], {EXPECTED_AT + 1}) / {MINUTE_US})] then
    found[#found + 1] = pairs[at]
    found[#found + 1] = pairs[at + 1]
  end
end
return found
"""
"""Server-side: ids and records of some minutes (ARGV but the first two) of a raw bucket (the second key); nothing if
the ledger stands as said."""
