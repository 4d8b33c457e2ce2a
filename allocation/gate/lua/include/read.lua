--[[
  Read records as the decisions before this one left them.

  READ_RESERVATION  {op, reservation id}            FOUND with the record, or UNKNOWN_RESERVATION
  READ_STOCK        {op, {sku, ...}}                FOUND with a list of records, nil where there is none
  READ_CONFIGURATION {op}                           FOUND with a flat list: key, record, ...
  CHECK_LINES       {op, {sku, ...}, {location, ...}}  FOUND, UNKNOWN_SKU or UNKNOWN_LOCATION
]]
local function read_reservation(id)
  local reservation = reservations.get(id)
  if not reservation or reservation[STATE_AT] == STATE.REFUSED then
    return refuse(OUTCOME.UNKNOWN_RESERVATION, id)
  end
  return answer(OUTCOME.FOUND, reservation[VERSION_AT], cmsgpack.pack(reservation))
end

local function read_stock(skus)
  local packed = { array_header(#skus) }
  for index, sku in ipairs(skus) do
    local record = stock.get(sku)
    packed[index + 1] = record and pack_stock(record) or NIL
  end
  return answer(OUTCOME.FOUND, journal.sequence, nil, table.concat(packed))
end

local function read_configuration()
  local fields = redis.call("HGETALL", call.keys[5])
  local found = {}
  for index = 1, #fields, 2 do
    if fields[index] ~= "" then
      found[#found + 1] = { fields[index], configuration.get(fields[index]) }
    end
  end
  return answer(OUTCOME.FOUND, journal.sequence, nil, cmsgpack.pack(found))
end

local function check_lines(skus, locations)
  for _, sku in ipairs(skus) do
    if not stock.get(sku) then
      return refuse(OUTCOME.UNKNOWN_SKU, sku)
    end
  end
  for _, location in ipairs(locations) do
    if not configuration.get("location:" .. location) then
      return refuse(OUTCOME.UNKNOWN_LOCATION, location)
    end
  end
  return answer(OUTCOME.FOUND, journal.sequence)
end
