;; Reads the clock until it shows another day.
(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $mono (result i64)))
(func $on_apply (param $batch i32)
  (loop $forever (br_if $forever (i64.lt_u (call $mono) (i64.const 86400000000000)))))
