--[[
  Put verified state into the gate, step by step, and open it last.

  Every step carries the epoch of the take-over it belongs to; a higher one that is present refuses it, so a
  loader that slept wakes up to a refusal. Between `begin` and `open` there is no epoch, which every batch
  reads as "no state".

  KEYS[1..8]  as in batch.lua
  ARGV[1]  step: begin, put, open or arm    ARGV[2]  epoch
  ARGV[3...]  put: number of the key, then its fields and values (or scores and members)
              open: sequence, hash, last ms    arm: sequence, hash

  Returns the epoch where the step was done, another epoch where it was refused, and "" where arm found
  that the state is not the one named.
]]
local function open(meta, epoch, sequence, hash, last_ms)
  redis.call("HSET", meta, "epoch", epoch, "sequence", sequence, "hash", hash, "last_ms", last_ms)
  redis.call("HDEL", meta, "loading")
end

-- Keys always exist, so that no key of the shard can be missing at the source of a moving slot.
local function begin(keys, epoch)
  redis.call("DEL", unpack(keys))
  redis.call("HSET", keys[1], "loading", epoch)
  for index = 2, 5 do
    redis.call("HSET", keys[index], "", "\192")
  end
  redis.call("ZADD", keys[6], "+inf", "")
  redis.call("ZADD", keys[7], 0, "")
  redis.call("XADD", keys[8], "0-1", "0", "")
end

local function put(key, arguments, command)
  for first = 4, #arguments, 4000 do
    redis.call(command, key, unpack(arguments, first, math.min(first + 3999, #arguments)))
  end
end

local function load(keys, arguments)
  local step, epoch = arguments[1], arguments[2]
  local present = redis.call("HMGET", keys[1], "epoch", "loading", "sequence", "hash")
  local newest = math.max(tonumber(present[1] or 0), tonumber(present[2] or 0))
  if newest > tonumber(epoch) then
    return tostring(newest)
  end
  if step == "begin" then
    begin(keys, epoch)
    return epoch
  end
  if step == "arm" then
    if not present[1] or present[3] ~= arguments[3] or present[4] ~= arguments[4] then
      return ""
    end
    redis.call("HSET", keys[1], "epoch", epoch)
    return epoch
  end
  if present[2] ~= epoch then
    return tostring(newest)
  end
  if step == "put" then
    local index = tonumber(arguments[3])
    put(keys[index], arguments, index >= 6 and "ZADD" or "HSET")
  else
    open(keys[1], epoch, arguments[3], arguments[4], arguments[5])
  end
  return epoch
end

redis.register_function({ function_name = "load_VERSION", callback = load, flags = { "allow-oom" } })
