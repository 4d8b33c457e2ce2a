--[[
  Create or change SKUs, locations and channels.

  CONFIGURE_SKU       {op, sku, {location, safety stock, ...}}
  CONFIGURE_LOCATION  {op, code, name}
  CONFIGURE_CHANNEL   {op, code, name, {location, ...}}
  Outcomes: CREATED, REPLACED, UNCHANGED, UNKNOWN_LOCATION
]]
local function configure(key, record)
  local known = configuration.get(key)
  if known then
    record[1] = known[1]
    if cmsgpack.pack(known) == cmsgpack.pack(record) then
      return answer(OUTCOME.UNCHANGED, known[1])
    end
  end

  -- After this point the configuration must be set.
  configuration.put(key, record)
  local version = record_decision(KIND.CONFIGURED, key)
  return answer(known and OUTCOME.REPLACED or OUTCOME.CREATED, version)
end

local function configure_location(code, name)
  return configure("location:" .. code, { 0, name })
end

local function configure_channel(code, name, locations)
  for _, location in ipairs(locations) do
    if not configuration.get("location:" .. location) then
      return refuse(OUTCOME.UNKNOWN_LOCATION, location)
    end
  end
  return configure("channel:" .. code, { 0, name, locations })
end

local function set_safety_stock(sku, wanted)
  local changed = false
  local record, pool = stock.get(sku), FIRST_POOL
  while record[pool] do
    local quantity = wanted[record[pool + LOCATION]] or 0
    changed = changed or record[pool + SAFETY_STOCK] ~= quantity
    record[pool + SAFETY_STOCK] = quantity
    pool = next_pool(record, pool)
  end
  return changed
end

local function configure_sku(sku, safety_stock)
  local wanted = {}
  for index = 1, #safety_stock, 2 do
    if not configuration.get("location:" .. safety_stock[index]) then
      return refuse(OUTCOME.UNKNOWN_LOCATION, safety_stock[index])
    end
    wanted[safety_stock[index]] = safety_stock[index + 1]
  end
  local known = stock.get(sku)
  if not known then
    stock.put(sku, { 0 })
  end
  stock.touch(sku)
  for index = 1, #safety_stock, 2 do
    pool_of(sku, safety_stock[index])
  end
  if not set_safety_stock(sku, wanted) and known then
    roll_back()
    return answer(OUTCOME.UNCHANGED, known[1])
  end

  -- After this point the SKU must be configured.
  local version = record_decision(KIND.CONFIGURED, "sku:" .. sku)
  return answer(known and OUTCOME.REPLACED or OUTCOME.CREATED, version)
end
