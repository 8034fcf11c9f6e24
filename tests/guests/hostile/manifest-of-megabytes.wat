;; Returns a manifest with a description of 20 MiB, which every status would contain.
(memory (export "memory") 400)
(func $on_setup
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 20971520))
  (i32.store (i32.const 1048) (i32.const 131072))
  (i32.store (i32.const 1052) (i32.const 20971520)))
