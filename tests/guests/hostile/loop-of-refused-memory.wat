;; Requests more memory than allowed again and again. The host must refuse each request.
(func $on_apply (param $batch i32)
  (loop $forever (drop (memory.grow (i32.const 60000))) (br $forever)))
