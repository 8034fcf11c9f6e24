;; Logs without end.
(import "lantern:projection/logging@0.2.0" "log" (func $log (param i32 i32 i32 i32)))
(func $on_apply (param $batch i32)
  (loop $forever (call $log (i32.const 0) (i32.const 2) (i32.const 66000) (i32.const 4000)) (br $forever)))
