--[[
  Put verified state into the gate, step by step, and open it last.

  Every step carries the epoch of the take-over it belongs to; a higher one that is present refuses it, so a
  loader that slept wakes up to a refusal. Between `begin` or `close` and `open` there is no epoch, which every
  batch reads as "no state". What is put is counted, and `open` names the count: a server that went down meanwhile,
  and came back without the last of it, is not opened; nor is a replica that was promoted before it had all.

  KEYS[1..8]  as in batch.lua
  ARGV[1]  step: begin, close, put, remove, forget, open or arm    ARGV[2]  epoch
  ARGV[3...]  close: the epoch, sequence and hash that are expected; what is there stays, to be brought forward
              put: number of the key, and packed: its fields and values (or scores and members)
              remove: number of the key, and packed: its fields (or members)
              forget: packed: from where and up to which member moves go, and so on
              open: sequence, hash, last ms, number of steps that put, removed or forgot (0 where it is missing)
              arm: sequence, hash
  What is packed has a header of five bytes, and then one value after the other.

  Returns the epoch where the step was done, a newer epoch that refused it, and "" where close, arm or open found
  that the state is not the one named, or no load of this epoch is under way.
]]
local HEADER_BYTES, VALUES_MAX = 5, 4000

local function open(meta, epoch, sequence, hash, last_ms)
  redis.call("HSET", meta, "epoch", epoch, "sequence", sequence, "hash", hash, "last_ms", last_ms)
  redis.call("HDEL", meta, "loading", "loaded")
end

-- Keys always exist, so that no key of the shard can be missing at the source of a moving slot.
local function begin(keys, epoch)
  redis.call("UNLINK", unpack(keys))
  redis.call("HSET", keys[1], "loading", epoch)
  for index = 2, 5 do
    redis.call("HSET", keys[index], "", "\192")
  end
  redis.call("ZADD", keys[6], "+inf", "")
  redis.call("ZADD", keys[7], 0, "")
  redis.call("XADD", keys[8], "0-1", "0", "")
end

local function close(meta, epoch)
  redis.call("HDEL", meta, "epoch")
  redis.call("HSET", meta, "loading", epoch, "loaded", 0)
end

-- Call `act` with all that is packed, as many values at a time as Lua's stack takes: an even number, so no pair is torn.
local function each_values(packed, act)
  local function pass(next_value, ...)
    act(...)
    return next_value
  end
  local offset = HEADER_BYTES
  while offset >= 0 do
    offset = pass(cmsgpack.unpack_limit(packed, VALUES_MAX, offset))
  end
end

local function call_with_values(command, key, packed)
  each_values(packed, function(...)
    redis.call(command, key, ...)
  end)
end

local CHANGE = {
  put = function(keys, arguments)
    local index = tonumber(arguments[3])
    call_with_values(index >= 6 and "ZADD" or "HSET", keys[index], arguments[4])
  end,
  remove = function(keys, arguments)
    local index = tonumber(arguments[3])
    call_with_values(index >= 6 and "ZREM" or "HDEL", keys[index], arguments[4])
  end,
  forget = function(keys, arguments)
    each_values(arguments[3], function(...)
      local ranges = { ... }
      for index = 1, #ranges, 2 do
        redis.call("ZREMRANGEBYLEX", keys[7], "[" .. ranges[index], "(" .. ranges[index + 1])
      end
    end)
  end,
}

local function load(keys, arguments)
  local step, epoch = arguments[1], arguments[2]
  local present = redis.call("HMGET", keys[1], "epoch", "loading", "sequence", "hash", "loaded")
  local newest = math.max(tonumber(present[1] or 0), tonumber(present[2] or 0))
  if newest > tonumber(epoch) then
    return tostring(newest)
  end
  if step == "begin" then
    begin(keys, epoch)
    return epoch
  end
  if step == "close" then
    if present[1] ~= arguments[3] or present[3] ~= arguments[4] or present[4] ~= arguments[5] then
      return ""
    end
    close(keys[1], epoch)
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
    return ""
  end
  if step == "open" then
    if tonumber(present[5] or 0) ~= tonumber(arguments[6] or 0) then
      return ""
    end
    open(keys[1], epoch, arguments[3], arguments[4], arguments[5])
    return epoch
  end
  CHANGE[step](keys, arguments)
  redis.call("HINCRBY", keys[1], "loaded", 1)
  return epoch
end

redis.register_function({ function_name = "load_VERSION", callback = load, flags = { "allow-oom" } })
