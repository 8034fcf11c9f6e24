;; Overwrites all of its memory, including its return values.
(func $on_apply (param $batch i32)
  (memory.fill (i32.const 0) (i32.const 255) (i32.const 131072)))
