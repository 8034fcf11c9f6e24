;; Writes a row under a key that is not UTF-8.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "\ff\fe\fd")
(func $on_apply (param $batch i32)
  (call $put (i32.const 0) (i32.const 1) (i32.const 16384) (i32.const 3) (i32.const 0) (i32.const 0)))
