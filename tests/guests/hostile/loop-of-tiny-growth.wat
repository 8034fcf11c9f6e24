;; Grows its memory by 0 pages again and again.
(func $on_apply (param $batch i32)
  (loop $forever (drop (memory.grow (i32.const 0))) (br $forever)))
