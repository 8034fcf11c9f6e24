;; Writes a row of a tenant that none of its events belongs to.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "other\00row")
(func $on_apply (param $batch i32)
  (call $put (i32.const 0) (i32.const 2) (i32.const 16384) (i32.const 9) (i32.const 0) (i32.const 0)))
