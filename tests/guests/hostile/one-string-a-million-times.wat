;; Returns a manifest with a million emitted types. All of them are the same mebibyte of the
;; guest's memory. Copies of all of them would be a terabyte.
(memory (export "memory") 200)
(func $on_setup (local $n i32)
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 1048576))
  (loop $more
    (i32.store (i32.add (i32.const 2097152) (i32.shl (local.get $n) (i32.const 3))) (i32.const 131072))
    (i32.store offset=4 (i32.add (i32.const 2097152) (i32.shl (local.get $n) (i32.const 3))) (i32.const 1048576))
    (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000))))
  (i32.store (i32.const 1084) (i32.const 2097152))
  (i32.store (i32.const 1088) (i32.const 1000000)))
