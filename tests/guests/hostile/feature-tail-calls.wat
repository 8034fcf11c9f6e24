;; Calls itself by tail calls without end.
(func $again (return_call $again))
(func $on_apply (param $batch i32)
  (call $again))
