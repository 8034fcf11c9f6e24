;; A core module that imports a function of another program.
(module
  (import "env" "system" (func (param i32) (result i32)))
  (memory (export "memory") 1))
