;; Asks for a larger table that it cannot have, again and again: of a loop whose only other
;; work is counted on the path that is not taken.
(table $t 1 funcref)
(func $on_apply (param $batch i32)
  (loop $forever (drop (table.grow $t (ref.null func) (i32.const -1))) (br $forever)))
