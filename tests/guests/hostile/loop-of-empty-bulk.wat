;; Loops over bulk instructions of no length, which have nothing to charge for but themselves.
(table $t 10 funcref)
(func $on_apply (param $batch i32)
  (loop $forever
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))
    (memory.copy (i32.const 0) (i32.const 0) (i32.const 0))
    (table.fill $t (i32.const 0) (ref.null func) (i32.const 0))
    (table.copy (i32.const 0) (i32.const 0) (i32.const 0))
    (br $forever)))
