;; Writes rows under keys that are not UTF-8. The keys are passed as a column of bytes, which
;; the host must check itself.
(import "lantern:projection/tables@0.2.0" "put-many" (func $put_many (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "\03\00\00\00")
(data (i32.const 16400) "a\ff\fe")
(func $on_apply (param $batch i32)
  (call $put_many (i32.const 24576) (i32.const 1)
    (i32.const 1) (i32.const 16384) (i32.const 1) (i32.const 16400) (i32.const 3)
    (i32.const 16384) (i32.const 1) (i32.const 16400) (i32.const 3)))
