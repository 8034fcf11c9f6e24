;; Grows its table until the host refuses.
(table $t 1 funcref)
(func $on_apply (param $batch i32)
  (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
  unreachable)
