--[[
  Make sure that this server still is the one that was verified, and that nobody has taken over.

  Any mismatch decides nothing. Missing meta is "no state", never "no stock".

  A process has one run id for life, and what a library remembers ends with the process: a server that starts, or
  gets the library from another one, asks again. To ask in every call takes longer than all else that is asked here.
  The role and the replication id may change between two calls.
]]
local own_run_id

local function fence(meta_key, epoch, run_id, replication_id)
  own_run_id = own_run_id or string.match(redis.call("INFO", "server"), "\nrun_id:(%x+)")
  local replication = redis.call("INFO", "replication")
  if
    own_run_id ~= run_id
    or not string.find(replication, "\nrole:master", 1, true)
    or not string.find(replication, "\nmaster_replid:" .. replication_id, 1, true)
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
