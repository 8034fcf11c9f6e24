;; Writes rows as a column whose keys are cut within a character.
(import "lantern:projection/tables@0.2.0" "put-many" (func $put_many (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
(data (i32.const 16384) "\01\00\00\00\02\00\00\00")
(data (i32.const 16400) "\c3\bc")
(func $on_apply (param $batch i32)
  (call $put_many (i32.const 24576) (i32.const 2)
    (i32.const 1) (i32.const 16384) (i32.const 2) (i32.const 16400) (i32.const 2)
    (i32.const 16384) (i32.const 2) (i32.const 16400) (i32.const 2)))
