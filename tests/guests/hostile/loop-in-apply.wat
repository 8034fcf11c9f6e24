;; Never ends `apply`.
(func $on_apply (param $batch i32)
  (loop $forever (br $forever)))
