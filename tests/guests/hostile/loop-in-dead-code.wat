;; Loops with unreachable code after the jump. A wrong count could charge fuel for that code
;; instead of the loop.
(func $on_apply (param $batch i32)
  (loop $forever (block $out (br_if $out (i32.eqz (i32.const 0))) (unreachable)) (br $forever) (drop (i32.const 1)) (loop (br 0))))
