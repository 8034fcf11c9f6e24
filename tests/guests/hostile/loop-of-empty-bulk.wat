;; Loops over bulk instructions of length 0, whose only cost is the instruction itself.
(table $t 10 funcref)
(func $on_apply (param $batch i32)
  (loop $forever
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))
    (memory.copy (i32.const 0) (i32.const 0) (i32.const 0))
    (table.fill $t (i32.const 0) (ref.null func) (i32.const 0))
    (table.copy (i32.const 0) (i32.const 0) (i32.const 0))
    (br $forever)))
