;; Requests random numbers without end.
(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
(func $on_apply (param $batch i32)
  (loop $forever (br_if $forever (i64.ne (call $random) (i64.const 0)))))
