;; Loops by calls through a table to a function that does nothing.
(table 1 funcref)
(elem (i32.const 0) $nothing)
(func $nothing)
(func $on_apply (param $batch i32)
  (loop $forever (call_indirect (i32.const 0)) (br $forever)))
