-- wrk … -- COUNT: requests go through the workspaces w1 … wCOUNT in turn.
local requests, next = {}, 0

function init(args)
  for number = 1, tonumber(args[1]) do
    local headers = { ["Host"] = wrk.headers["Host"], ["X-Eka-Workspace"] = "w" .. number }
    requests[number] = wrk.format("GET", nil, headers)
  end
end

function request()
  next = next % #requests + 1
  return requests[next]
end
