;; Drops the same handle twice.
(import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
(import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop_stream (param i32)))
(func $on_apply (param $batch i32)
  (local $h i32) (local.set $h (call $stderr))
  (call $drop_stream (local.get $h))
  (call $drop_stream (local.get $h)))
