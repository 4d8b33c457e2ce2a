--[[
  A stock record, packed and in memory: all pools of one SKU one after the other in one array.

  Packed it is the version and an array of the pools; in memory {version, pool, pool, ...}, with a pool being
    location, on_hand, damaged, quality_control, safety_stock, shipped, counted_at_ms, uses
  and as many uses as the last of these says, each
    channel, reserved, committed
  A pool is named by its index in the array, which holds until a use is added to a pool before it.

  One array because a table for each pool and use took most of the time of a reservation. The values are
  packed and unpacked as arguments, not as a table, because a table would be grown value by value.
]]
local LOCATION, ON_HAND, DAMAGED, QUALITY_CONTROL, SAFETY_STOCK = 0, 1, 2, 3, 4
local SHIPPED, COUNTED_AT_MS, USES = 5, 6, 7
local RESERVED, COMMITTED = 1, 2
local VERSION, FIRST_POOL, POOL_VALUES, USE_VALUES = 1, 2, 8, 3
-- Lua's stack takes some thousand arguments.
local ARGUMENTS_MAX = 4000

local function pack_stock(record)
  local last = #record
  -- Nearly every record is packed at once; one without pools has nothing to be packed.
  if last > FIRST_POOL and last < ARGUMENTS_MAX then
    return PAIR .. pack(record[VERSION]) .. long_array_header(last - 1) .. pack(unpack(record, FIRST_POOL, last))
  end
  local packed = PAIR .. pack(record[VERSION]) .. long_array_header(last - 1)
  for first = FIRST_POOL, last, ARGUMENTS_MAX do
    packed = packed .. pack(unpack(record, first, math.min(first + ARGUMENTS_MAX - 1, last)))
  end
  return packed
end

-- The first thing that unpack_limit returns is where it stopped, or -1 at the end: that place is the version's.
local function unpack_stock(packed)
  local next_value, version = unpack_limit(packed, 1, 1)
  -- The header is as long_array_header made it. Few records are so long that it needs to be looked at.
  local header_bytes = #packed > 65535 and string.byte(packed, next_value + 1) == 221 and 5 or 3
  local record = { unpack_limit(packed, ARGUMENTS_MAX, next_value + header_bytes) }
  while record[1] ~= -1 do
    local more = { unpack_limit(packed, ARGUMENTS_MAX, record[1]) }
    for index = 2, #more do
      record[#record + 1] = more[index]
    end
    record[1] = more[1]
  end
  record[VERSION] = version
  return record
end

local function next_pool(record, pool)
  return pool + POOL_VALUES + USE_VALUES * record[pool + USES]
end

-- Find a pool, or add an empty one. Returns the record and the pool's index in it.
local function pool_in(record, location)
  local pool = FIRST_POOL
  while record[pool] do
    if record[pool] == location then
      return record, pool
    end
    pool = next_pool(record, pool)
  end
  record[pool] = location
  for index = pool + 1, pool + POOL_VALUES - 1 do
    record[index] = 0
  end
  return record, pool
end

-- Find what a channel has of a pool, or add a use of nothing. Returns the use's index.
local function use_in(record, pool, channel)
  local past = next_pool(record, pool)
  for use = pool + POOL_VALUES, past - 1, USE_VALUES do
    if record[use] == channel then
      return use
    end
  end
  for index = #record, past, -1 do
    record[index + USE_VALUES] = record[index]
  end
  record[past], record[past + RESERVED], record[past + COMMITTED] = channel, 0, 0
  record[pool + USES] = record[pool + USES] + 1
  return past
end
