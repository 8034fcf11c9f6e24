;; Asks for memory it cannot have, again and again: each time the host has to say no.
(func $on_apply (param $batch i32)
  (loop $forever (drop (memory.grow (i32.const 60000))) (br $forever)))
