#!lua flags=allow-oom
-- Puts entries that a consumer holds at the end of their lanes again. Ids are
-- never used twice, so one that is gone, or is another consumer's by now, is
-- told apart and left alone.
--
-- KEYS[1]  prefix of the shard (keys: see commit.lua)
-- ARGV     lane, id, consumer of each entry
--
-- Returns  how many were given back
local P, given = KEYS[1], 0
for i = 1, #ARGV, 3 do
  local lane, id, consumer = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local key = P .. ':l:' .. lane
  if redis.call('HEXISTS', P .. ':p', lane) == 1 and #redis.call('XPENDING', key, 'g', id, id, 1, consumer) == 1 then
    local e = redis.call('XRANGE', key, id, id)
    redis.call('XACK', key, 'g', id)
    redis.call('XDEL', key, id)
    if redis.call('HINCRBY', P .. ':p', lane, -1) <= 0 then redis.call('HDEL', P .. ':p', lane) end
    if e[1] then
      local n = redis.call('HINCRBY', P .. ':h', 'n', 1)
      local w = redis.call('HINCRBY', P .. ':h', 'w', 1)
      redis.call('XADD', key, string.format('%.0f-0', n), 'e', e[1][2][2])
      redis.call('HINCRBY', P .. ':n', lane, 1)
      redis.call('XADD', P .. ':w', 'MAXLEN', '~', 10000, string.format('%.0f-0', w), 'l', lane)
      given = given + 1
    end
  end
end
return given
