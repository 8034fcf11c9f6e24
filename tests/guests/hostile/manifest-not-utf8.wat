;; Has a name that is not UTF-8.
(data (i32.const 16384) "\ff\fe")
(func $on_setup
  (i32.store (i32.const 1032) (i32.const 16384)) (i32.store (i32.const 1036) (i32.const 2)))
