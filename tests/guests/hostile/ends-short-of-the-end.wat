;; Reads rows by a column of keys with bytes after the last key.
(import "lantern:projection/tables@0.2.0" "get-many" (func $get_many (param i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "\01\00\00\00")
(data (i32.const 16400) "abc")
(func $on_apply (param $batch i32)
  (call $get_many (i32.const 1) (i32.const 16384) (i32.const 1) (i32.const 16400) (i32.const 3) (i32.const 8192)))
