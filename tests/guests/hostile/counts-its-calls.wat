;; Writes the number of calls of its instance to a row.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(global $calls (mut i64) (i64.const 0))
(data (i32.const 16384) "key")
(data (i32.const 16400) "{\"n\":   111111111111111}")
(func $on_apply (param $batch i32)
  (local $r i64) (local $d i32)
  (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
  (local.set $r (global.get $calls))
  (loop $bit
    (i32.store8 (i32.add (i32.const 16408) (local.get $d)) (i32.add (i32.const 49) (i32.and (i32.wrap_i64 (local.get $r)) (i32.const 7))))
    (local.set $r (i64.shr_u (local.get $r) (i64.const 3)))
    (br_if $bit (i32.lt_u (local.tee $d (i32.add (local.get $d) (i32.const 1))) (i32.const 15))))
  (call $put (i32.const 0) (i32.const 0) (i32.const 16384) (i32.const 3) (i32.const 16400) (i32.const 24)))
