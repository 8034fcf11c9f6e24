;; Reads a row from the host again and again.
(import "lantern:projection/tables@0.2.0" "get" (func $get (param i32 i32 i32 i32)))
(data (i32.const 16384) "key")
(data (i32.const 16400) "{\"n\":1}")
(func $on_apply (param $batch i32)
  (loop $forever (call $get (i32.const 0) (i32.const 16384) (i32.const 3) (i32.const 8192)) (br $forever)))
