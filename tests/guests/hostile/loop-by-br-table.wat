;; Loops only by a jump table.
(func $on_apply (param $batch i32)
  (local $n i32) (loop $a (loop $b (loop $c (br_table $a $b $c (local.tee $n (i32.add (local.get $n) (i32.const 1))))))))
