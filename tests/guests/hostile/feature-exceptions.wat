;; Throws and catches exceptions.
(tag $e)
(func $on_apply (param $batch i32)
  (block $out (try_table (catch $e $out) (throw $e))))
