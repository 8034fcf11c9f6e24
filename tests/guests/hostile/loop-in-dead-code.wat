;; Loops with unreachable code after the jump. A host that counts wrongly could charge fuel for
;; the unreachable code instead of the loop.
(func $on_apply (param $batch i32)
  (loop $forever (block $out (br_if $out (i32.eqz (i32.const 0))) (unreachable)) (br $forever) (drop (i32.const 1)) (loop (br 0))))
