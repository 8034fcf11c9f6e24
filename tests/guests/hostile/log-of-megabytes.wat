;; Logs one message of 50 MB.
(import "lantern:projection/logging@0.2.0" "log" (func $log (param i32 i32 i32 i32)))
(memory (export "memory") 900)
(func $on_apply (param $batch i32)
  (call $log (i32.const 0) (i32.const 2) (i32.const 131072) (i32.const 50000000)))
