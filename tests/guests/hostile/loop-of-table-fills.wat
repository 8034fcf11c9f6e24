;; Loops over fills of a table of the maximum size.
(table $t 199000 funcref)
(func $on_apply (param $batch i32)
  (loop $forever (table.fill $t (i32.const 0) (ref.null func) (i32.const 199000)) (br $forever)))
