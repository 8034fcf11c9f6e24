;; Has the name `../x`, which must not become a file name.
(data (i32.const 16384) "../x")
(func $on_setup
  (i32.store (i32.const 1032) (i32.const 16384)) (i32.store (i32.const 1036) (i32.const 4)))
