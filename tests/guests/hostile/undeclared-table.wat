;; Writes to a table that its manifest does not declare, as if it could be another projection's.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "key")
(data (i32.const 16400) "{\"n\":1}")
(func $on_apply (param $batch i32)
  (call $put (i32.const 0) (i32.const 3) (i32.const 16384) (i32.const 3) (i32.const 16400) (i32.const 7)))
