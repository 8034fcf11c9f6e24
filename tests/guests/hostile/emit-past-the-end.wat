;; Emits a list of events that is beyond the end of its memory.
(import "lantern:projection/outbox@0.2.0" "emit" (func $emit (param i32 i32)))
(func $on_apply (param $batch i32)
  (call $emit (i32.const 8192) (i32.const 0x7fffff)))
