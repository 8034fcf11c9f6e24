;; Writes to a stream whose handle it never received.
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
(func $on_apply (param $batch i32)
  (call $write (i32.const 77777) (i32.const 0) (i32.const 1) (i32.const 8192)))
