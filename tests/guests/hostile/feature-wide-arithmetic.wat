;; Multiplies to 128 bits.
(func $on_apply (param $batch i32)
  (i64.mul_wide_u (i64.const 3) (i64.const 5)) drop drop)
