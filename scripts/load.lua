-- What wrk asks for scripts/load.sh, by the path that it is given: POST /call with the body that
-- Asterisk sends, or POST /events with the body that AVR Core sends for a transcript. A fresh uuid
-- each time, so that every request is of a new call: one with a routing question of its own, or one
-- whose event waits for no other.
-- Its one argument is a number that tells this run's uuids from those of the runs before it.

local run, call = 0, 0
local body

local bodies = {
   ["/call"] = '{"uuid":"%08x-0000-4000-8000-%012x","payload":{"from":"2000","to":"5001",' ..
      '"uniqueid":"1795457910.%d","channel":"PJSIP/2000-%08x"}}',
   ["/events"] = '{"uuid":"%08x-0000-4000-8000-%012x","type":"transcription",' ..
      '"timestamp":"2026-11-23T20:00:00.000Z",' ..
      '"payload":{"role":"user","text":"This is sentence %d of caller %d."}}',
}

function init(args)
   run = tonumber(args[1])
   body = bodies[wrk.path]
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
end

function request()
   call = call + 1
   return wrk.format(nil, nil, nil, string.format(body, run, call, call, call))
end

-- One line for the script: requests/s, p50 and p99 in microseconds, requests that went wrong.
function done(summary, latency)
   local wrong = summary.errors
   print(string.format("result %.0f %d %d %d",
      summary.requests / (summary.duration / 1e6), latency:percentile(50), latency:percentile(99),
      wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout))
end
