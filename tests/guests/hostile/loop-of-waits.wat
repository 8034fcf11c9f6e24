;; Waits again and again for a WASI timer that has already fired.
(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $wait (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
(func $on_apply (param $batch i32)
  (local $h i32) (local.set $h (call $wait (i64.const 1)))
  (loop $forever (call $block (local.get $h)) (br $forever)))
