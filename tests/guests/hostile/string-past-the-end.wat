;; Returns a manifest whose name is beyond the end of its memory.
(func $on_setup
  (i32.store (i32.const 1032) (i32.const 0x7ffffff0)))
