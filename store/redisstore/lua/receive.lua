#!lua flags=allow-oom
-- Hands the oldest entries of the first lane that has any to a consumer.
--
-- KEYS[1]  prefix of the shard (keys: see commit.lua)
-- ARGV[1]  consumer   ARGV[2]  how many at most   ARGV[3…]  lanes, in order
--
-- Returns  {lane, id, entry, id, entry, …}, or {} when no lane has any
local P = KEYS[1]
for i = 3, #ARGV do
  local lane = ARGV[i]
  if redis.call('HEXISTS', P .. ':n', lane) == 1 then
    local got = redis.call('XREADGROUP', 'GROUP', 'g', ARGV[1], 'COUNT', ARGV[2], 'STREAMS', P .. ':l:' .. lane, '>')
    if got then
      local out = {lane}
      for _, e in ipairs(got[1][2]) do
        out[#out + 1] = e[1]
        out[#out + 1] = e[2][2]
      end
      local n = (#out - 1) / 2
      if redis.call('HINCRBY', P .. ':n', lane, -n) <= 0 then redis.call('HDEL', P .. ':n', lane) end
      redis.call('HINCRBY', P .. ':p', lane, n)
      return out
    end
  end
end
return {}
