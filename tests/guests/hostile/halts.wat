;; Requests in its manifest that a failure halts it, and fails.
(func $on_setup
  (i32.store8 (i32.const 1128) (i32.const 2)))
(func $on_apply (param $batch i32)
  unreachable)
