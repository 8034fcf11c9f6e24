;; Wants a function of another program, as a core module.
(module
  (import "env" "system" (func (param i32) (result i32)))
  (memory (export "memory") 1))
