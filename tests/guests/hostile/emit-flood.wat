;; Emits twenty thousand events in one call.
(import "lantern:projection/outbox@0.2.0" "emit" (func $emit (param i32 i32)))
(data (i32.const 16384) "key")
(data (i32.const 16400) "{\"n\":1}")
(func $on_apply (param $batch i32)
  (local $n i32) (i32.store (i32.const 8192) (i32.const 0))
  (i32.store (i32.const 8196) (i32.load (i32.load (i32.const 1084))))
  (i32.store (i32.const 8200) (i32.load offset=4 (i32.load (i32.const 1084))))
  (i64.store (i32.const 8224) (i64.const 0))
  (i32.store (i32.const 8232) (i32.const 16400))
  (i32.store (i32.const 8236) (i32.const 7))
  (loop $more
    (call $emit (i32.const 8192) (i32.const 1))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000)))))
