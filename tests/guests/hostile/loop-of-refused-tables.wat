;; Requests a larger table than allowed again and again, in a loop without other work. The host
;; must refuse each request.
(table $t 1 funcref)
(func $on_apply (param $batch i32)
  (loop $forever (drop (table.grow $t (ref.null func) (i32.const -1))) (br $forever)))
