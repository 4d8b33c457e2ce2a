--[[
  What one call carries: its keys, its limits and its one reading of the clock.

  The gate's time never runs backwards, and never leaves the bounds in which the caller expects it: a clock that is
  set while the service runs must not end holds, nor keep them.
]]
local call = {}

-- A library cannot see these while it loads, and to find them anew at every use takes longer than some of them.
local pack, unpack_packed, unpack_limit, concat, redis_call, sha1hex

local function start_call(keys, arguments, last_ms)
  pack, unpack_packed, unpack_limit = cmsgpack.pack, cmsgpack.unpack, cmsgpack.unpack_limit
  concat, redis_call, sha1hex = table.concat, redis.call, redis.sha1hex
  local clock = redis.call("TIME")
  call.clock_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
  call.now_ms = math.max(last_ms, math.min(math.max(call.clock_ms, tonumber(arguments[9])), tonumber(arguments[10])))
  -- What happened elsewhere may lie behind this and before the gate's own time, where that is late.
  call.latest_ms = math.max(call.now_ms, tonumber(arguments[10]))
  call.keys = keys
  call.epoch = arguments[1]
  call.reservation_retention_ms = tonumber(arguments[7])
  call.event_retention_ms = tonumber(arguments[8])
  -- Until every overdue hold has expired, no sale may be refused for want of stock.
  call.swept_all = false
  -- When to look again at holds that could not be ended: ms, member of the deadlines, and so on.
  call.put_off = {}
end
