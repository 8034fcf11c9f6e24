;; Requests more random bytes than fit its memory.
(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random_bytes (param i64 i32)))
(func $on_apply (param $batch i32)
  (call $random_bytes (i64.const 0x7fffffffffff) (i32.const 8192)))
