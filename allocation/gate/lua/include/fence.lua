--[[
  Make sure that this server still is the one that was verified, and that nobody has taken over.

  Any mismatch decides nothing. Missing meta is "no state", never "no stock".
]]
local function fence(meta_key, epoch, run_id, replication_id)
  local server = redis.call("INFO", "server", "replication")
  if
    not string.find(server, run_id, 1, true)
    or not string.find(server, "\nrole:master", 1, true)
    or not string.find(server, "\nmaster_replid:" .. replication_id, 1, true)
  then
    return STATUS.FENCED
  end
  local meta = redis.call("HMGET", meta_key, "epoch", "sequence", "hash", "last_ms")
  if not meta[1] then
    return STATUS.NO_STATE
  end
  if meta[1] ~= epoch then
    return STATUS.FENCED
  end
  return STATUS.DECIDED, tonumber(meta[2]), meta[3], tonumber(meta[4])
end
