-- Who asks for /green gets the green pool; choose-weir.lua says the same. Waits for the request.
core.register_action("choose", { "tcp-req" }, function(txn)
  local request = txn.req:data(0, 64)
  if request and request:sub(1, 11) == "GET /green " then
    txn:set_var("txn.pool", "green")
  end
end)
