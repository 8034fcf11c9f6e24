;; Returns another name each time `setup` is called on an instance. The host calls `setup`
;; once per instance, so this has no effect.
(global $calls (mut i32) (i32.const 0))
(func $on_setup
  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
  (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (i32.store (i32.const 1036) (i32.const 1)))))
