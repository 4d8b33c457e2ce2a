--[[
  The arithmetic of one pool: the stock of one SKU at one location, and what each channel has of it.

  A line of a reservation is {sku, quantity, location, shipped, returned, pinned}.
]]
local function pool_of(sku, location)
  return pool_in(stock.get(sku), location)
end

local function used(record, pool, bucket)
  local total = 0
  for use = pool + POOL_VALUES, next_pool(record, pool) - 1, USE_VALUES do
    total = total + record[use + bucket]
  end
  return total
end

-- A status below zero waits for a movement that is still on its way; until then it frees no unit.
local function available(record, pool)
  local damaged, in_control = record[pool + DAMAGED], record[pool + QUALITY_CONTROL]
  local units = record[pool + ON_HAND] - record[pool + SAFETY_STOCK] + record[pool + SHIPPED]
    - (damaged > 0 and damaged or 0) - (in_control > 0 and in_control or 0)
  for use = pool + POOL_VALUES, next_pool(record, pool) - 1, USE_VALUES do
    units = units - record[use + RESERVED] - record[use + COMMITTED]
  end
  return units
end

local function promise_of(record, pool, channel, bucket, quantity)
  local use = use_in(record, pool, channel)
  record[use + bucket] = record[use + bucket] + quantity
  if record[use + RESERVED] < 0 or record[use + COMMITTED] < 0 then
    error("Bug: " .. record[pool + LOCATION] .. " would have less than nothing promised")
  end
  if bucket == COMMITTED and quantity < 0 then
    record[pool + SHIPPED] = math.min(record[pool + SHIPPED], used(record, pool, COMMITTED))
  end
end

-- Move units of a channel in or out of a bucket. Units cannot have left unnamed that nobody has committed.
local function promise(sku, location, channel, bucket, quantity)
  -- Touched before it is changed, so that a decision that breaks here is rolled back too.
  stock.touch(sku)
  local record, pool = pool_of(sku, location)
  promise_of(record, pool, channel, bucket, quantity)
end

-- Take up to `quantity` units from the given locations in order; return what could not be had.
local function take(sku, quantity, locations, pinned, channel, bucket, lines)
  local record = stock.get(sku)
  for index = 1, #locations do
    local location = locations[index]
    local _, pool = pool_in(record, location)
    local units = available(record, pool)
    if units > 0 then
      units = units < quantity and units or quantity
      stock.touch(sku)
      promise_of(record, pool, channel, bucket, units)
      lines[#lines + 1] = { sku, units, location, 0, 0, pinned }
      quantity = quantity - units
    end
    if quantity == 0 then
      break
    end
  end
  return quantity
end

-- Name the figure that left too little: the goods themselves, or what others hold of them. `taken` is what
-- this cart has of them already.
local function limit(sku, locations, missing, taken)
  local held = -taken
  for _, location in ipairs(locations) do
    local record, pool = pool_of(sku, location)
    held = held + used(record, pool, RESERVED)
  end
  return held >= missing and "reserved" or "on_hand"
end

local function sources(channel, location)
  for _, sourced in ipairs(channel[3]) do
    if sourced == location then
      return true
    end
  end
  return false
end

-- Refuse lines that name what does not exist; return nil where all of them do.
local function refuse_unknown(channel, wanted)
  for index = 1, #wanted do
    local want = wanted[index]
    if not stock.get(want[1]) then
      return refuse(OUTCOME.UNKNOWN_SKU, want[1])
    end
    if want[3] ~= "" and not sources(channel, want[3]) then
      return refuse(OUTCOME.UNKNOWN_LOCATION, want[3])
    end
  end
end

-- Take every wanted line, pins first as the caller sorted them; return the lines and what was short.
local function source_lines(channel_code, channel, wanted, bucket)
  local lines, shortages = {}, {}
  for index = 1, #wanted do
    local want = wanted[index]
    local sku, quantity, pin = want[1], want[2], want[3]
    local locations = pin ~= "" and { pin } or channel[3]
    local missing = take(sku, quantity, locations, pin ~= "", channel_code, bucket, lines)
    if missing > 0 then
      shortages[#shortages + 1] = { sku, quantity, quantity - missing, limit(sku, locations, missing, quantity - missing) }
    end
  end
  return lines, shortages
end
