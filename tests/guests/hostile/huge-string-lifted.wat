;; Fails with a message of 40 MiB.
(memory (export "memory") 700)
(func $on_apply (param $batch i32)
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 41943040))
  (i32.store8 (i32.const 512) (i32.const 1))
  (i32.store (i32.const 524) (i32.const 131072))
  (i32.store (i32.const 528) (i32.const 41943040)))
