;; Writes two thousand rows and scans them without end.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(import "lantern:projection/tables@0.2.0" "scan" (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32)))
(func $on_apply (param $batch i32)
  (local $n i32) (local $r i32) (local $d i32)
  (loop $more
    (local.set $r (local.get $n)) (local.set $d (i32.const 7))
    (loop $digit
      (i32.store8 (i32.add (i32.const 16384) (local.get $d)) (i32.add (i32.const 97) (i32.and (local.get $r) (i32.const 15))))
      (local.set $r (i32.shr_u (local.get $r) (i32.const 4)))
      (br_if $digit (i32.ge_s (local.tee $d (i32.sub (local.get $d) (i32.const 1))) (i32.const 0))))
    (call $put (i32.const 0) (i32.const 1) (i32.const 16384) (i32.const 8) (i32.const 0) (i32.const 0))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 2000))))
  (loop $forever
    (call $scan (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 8192))
    (global.set $heap (i32.const 65536))
    (br $forever)))
