;; Checks whether the bits of a NaN depend on the machine. The host makes all NaNs the same.
(import "lantern:projection/tables@0.2.0" "put" (func $put (param i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "samodd")
(data (i32.const 16400) "{\"n\":1}")
(global $zero (mut f32) (f32.const 0))
(func $on_apply (param $batch i32)
  (call $put (i32.const 0) (i32.const 0)
    (select (i32.const 16384) (i32.const 16387) (i32.and
      (i32.eq (i32.reinterpret_f32 (f32.div (global.get $zero) (global.get $zero))) (i32.const 0x7fc00000))
      (i64.eq (i64.reinterpret_f64 (f64.add (f64.promote_f32 (global.get $zero)) (f64.const nan:0x8000000000123)))
        (i64.const 0x7ff8000000000000))))
    (i32.const 3) (i32.const 16400) (i32.const 7)))
