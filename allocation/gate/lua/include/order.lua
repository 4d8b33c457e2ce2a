--[[
  Record a sale that a marketplace has already made: always taken, and what exceeds the stock is reported.

  Command: {op, reservation id, fingerprint, channel, order id, {{sku, quantity, location}}}
  Outcomes: COMMITTED, REPLAYED, IDEMPOTENCY_MISMATCH, UNKNOWN_CHANNEL, UNKNOWN_SKU, UNKNOWN_LOCATION, DEFERRED
]]
local function add_to_line(lines, sku, location, quantity, pinned)
  for _, line in ipairs(lines) do
    if line[1] == sku and line[3] == location and line[6] == pinned then
      line[2] = line[2] + quantity
      return
    end
  end
  lines[#lines + 1] = { sku, quantity, location, 0, 0, pinned }
end

local function order(id, fingerprint, channel_code, order_id, wanted)
  local known = reservations.get(id)
  if known then
    return replay(known, fingerprint)
  end
  local channel = configuration.get("channel:" .. channel_code)
  if not channel or #channel[3] == 0 then
    return refuse(OUTCOME.UNKNOWN_CHANNEL, channel_code)
  end
  local refusal = refuse_unknown(channel, wanted)
  if refusal then
    return refusal
  end
  local lines, shortages = {}, {}
  for _, want in ipairs(wanted) do
    local sku, quantity, pinned = want[1], want[2], want[3] ~= ""
    local locations = pinned and { want[3] } or channel[3]
    local missing = take(sku, quantity, locations, pinned, channel_code, COMMITTED, lines)
    if missing > 0 then
      shortages[#shortages + 1] = { sku, quantity, quantity - missing, limit(sku, locations, missing, 0) }
      -- What nobody has is owed by the first choice of location.
      promise(sku, locations[1], channel_code, COMMITTED, missing)
      add_to_line(lines, sku, locations[1], missing, pinned)
    end
  end
  if #shortages > 0 and not call.swept_all then
    return refuse(OUTCOME.DEFERRED)
  end

  -- After this point the order must be recorded.
  reservations.put(id, { STATE.COMMITTED, 0, fingerprint, channel_code, 0, order_id, "", lines, shortages })
  local version = record_decision(KIND.ORDERED, id)
  return answer(OUTCOME.COMMITTED, version, reservations.packed(id))
end
