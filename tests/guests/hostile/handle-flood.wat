;; Takes handles without end, and drops none.
(import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
(func $on_apply (param $batch i32)
  (loop $forever (drop (call $stderr)) (br $forever)))
