;; Loops over fills of the largest size that fits its memory: one instruction, much work.
(memory (export "memory") 900)
(func $on_apply (param $batch i32)
  (loop $forever (memory.fill (i32.const 131072) (i32.const 7) (i32.const 58000000)) (br $forever)))
