;; Reads the same missing row millions of times in one call, by a column of empty keys, and
;; repeats this in the same memory until its fuel is used up.
(import "lantern:projection/tables@0.2.0" "get-many" (func $get_many (param i32 i32 i32 i32 i32 i32)))
(memory (export "memory") 500)
(func $on_apply (param $batch i32)
  (local $kept i32)
  (local.set $kept (global.get $heap))
  (loop $again
    (global.set $heap (local.get $kept))
    (call $get_many (i32.const 1) (i32.const 131072) (i32.const 7000000) (i32.const 0) (i32.const 0) (i32.const 8192))
    (br $again)))
