;; Writes a row of 2 MiB.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(memory (export "memory") 400)
(func $on_apply (param $batch i32)
  (call $put (i32.const 0) (i32.const 1) (i32.const 16384) (i32.const 1) (i32.const 131072) (i32.const 2097152)))
