-- Health of every kind of voicedock.dev that people write, and of RoutingTable, for Argo CD. One script for all of them:
-- they have the same conditions. It needs no library that Argo CD doesn't open by default.
--
-- Healthy: Ready. Degraded: something has to be changed. Progressing: it will be ready by itself, or when an object that it
-- names arrives: order never matters, so an object that is missing is waited for.
local waiting = {
  Pending = true,
  RefNotFound = true,
  RefNotAccepted = true,
  SecretKeyMissing = true,
  NoReadyGateways = true,
  AddressNotAssigned = true,
}

local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not seen this version yet" }
end

local ready
for _, condition in ipairs(status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    return { status = "Degraded", message = condition.message }
  end
  if condition.type == "Ready" then
    ready = condition
  end
end

if ready == nil then
  return { status = "Progressing", message = "The operator has not said yet whether it is ready" }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready.status == "Unknown" or waiting[ready.reason] then
  return { status = "Progressing", message = ready.message }
end
return { status = "Degraded", message = ready.message }
