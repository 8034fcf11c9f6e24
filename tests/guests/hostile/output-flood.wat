;; Writes to standard error without end.
(import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
(func $on_apply (param $batch i32)
  (local $h i32) (local.set $h (call $stderr))
  (loop $forever (call $write (local.get $h) (i32.const 0) (i32.const 4096) (i32.const 8192)) (br $forever)))
