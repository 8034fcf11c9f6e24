;; Returns a manifest whose list of subscriptions is longer than its memory.
(func $on_setup
  (i32.store (i32.const 1060) (i32.const 0x1fffffff)))
