;; Creates WASI timers without end, and drops none.
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $wait (param i64) (result i32)))
(func $on_apply (param $batch i32)
  (loop $forever (drop (call $wait (i64.const 1))) (br $forever)))
