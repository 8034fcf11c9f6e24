;; Writes a row under a key of 10 MB.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(memory (export "memory") 400)
(func $on_apply (param $batch i32)
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 10000000))
  (call $put (i32.const 0) (i32.const 1) (i32.const 131072) (i32.const 10000000) (i32.const 0) (i32.const 0)))
