;; Loops over copies of the largest size that fits its memory.
(memory (export "memory") 900)
(func $on_apply (param $batch i32)
  (loop $forever (memory.copy (i32.const 131072) (i32.const 131080) (i32.const 58000000)) (br $forever)))
