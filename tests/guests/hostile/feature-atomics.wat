;; Uses the atomic instructions of the threads proposal on an unshared memory.
(func $on_apply (param $batch i32)
  (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1))))
