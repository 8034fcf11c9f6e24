;; Switches between stacks.
(type $f (func))
(type $c (cont $f))
(func $nothing)
(elem declare func $nothing)
(func $on_apply (param $batch i32)
  (drop (cont.new $c (ref.func $nothing))))
