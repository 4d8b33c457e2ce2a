--[[
  Give back a hold, or cancel what of a commitment has not been shipped.

  Command: {op, reservation id, hold only}
  Outcomes: RELEASED, REPLAYED, ALREADY_COMMITTED, ALREADY_SHIPPED, UNKNOWN_RESERVATION
]]
local function release(id, hold_only)
  local reservation = reservations.get(id)
  if not reservation or reservation[STATE_AT] == STATE.REFUSED then
    return refuse(OUTCOME.UNKNOWN_RESERVATION, id)
  end
  local state = reservation[STATE_AT]
  if state == STATE.RELEASED then
    return answer(OUTCOME.REPLAYED, reservation[VERSION_AT], cmsgpack.pack(reservation))
  end
  if hold_only and state ~= STATE.HELD and state ~= STATE.EXPIRED then
    return refuse(OUTCOME.ALREADY_COMMITTED, id)
  end
  if state == STATE.SHIPPED or state == STATE.RETURNED then
    return refuse(OUTCOME.ALREADY_SHIPPED, id)
  end

  -- After this point the release must succeed. An expired hold has nothing left to give, but from now on
  -- a late confirmation must not take its units again.
  if state == STATE.EXPIRED then
    reservation[STATE_AT] = STATE.RELEASED
    reservations.touch(id)
  else
    close(id, reservation, STATE.RELEASED)
  end
  local version = record_decision(KIND.RELEASED, id)
  return answer(OUTCOME.RELEASED, version, reservations.packed(id))
end
