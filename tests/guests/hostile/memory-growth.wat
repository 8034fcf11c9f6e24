;; Grows its memory until the host refuses, and writes to all of it.
(func $on_apply (param $batch i32)
  (local $at i32) (loop $more
    (if (i32.ne (local.tee $at (memory.grow (i32.const 16))) (i32.const -1)) (then
      (memory.fill (i32.shl (local.get $at) (i32.const 16)) (i32.const 1) (i32.const 1048576))
      (br $more))))
  unreachable)
