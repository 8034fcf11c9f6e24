;; Fails, and names an event as the cause that was not in the batch.
(func $on_apply (param $batch i32)
  (i32.store8 (i32.const 512) (i32.const 1))
  (i32.store8 (i32.const 516) (i32.const 1))
  (i32.store (i32.const 520) (i32.const -1)))
