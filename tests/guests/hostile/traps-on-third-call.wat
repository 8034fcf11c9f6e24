;; Traps in the third call of an instance. On a fresh instance each event succeeds, so none is
;; parked.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(global $calls (mut i32) (i32.const 0))
(data (i32.const 16384) "key")
(data (i32.const 16400) "{\"n\":1}")
(func $on_apply (param $batch i32)
  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
  (call $put (i32.const 0) (i32.const 0) (i32.const 16384) (i32.const 3) (i32.const 16400) (i32.const 7)))
