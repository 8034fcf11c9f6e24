;; Has objects that need a garbage collector.
(type $s (struct (field i64)))
(func $on_apply (param $batch i32)
  (loop $forever (drop (struct.new $s (i64.const 1))) (br $forever)))
