;; Emits the type to which it subscribes, so its events would cause further events without end.
(func $on_setup
  (i32.store (i32.const 1084) (i32.load (i32.const 1056))) (i32.store (i32.const 1088) (i32.const 1)))
