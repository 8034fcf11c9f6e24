;; Wants the terminal's size, which is of a WASI that is not there.
(component
  (import "wasi:keyvalue/store@0.2.0" (instance (export "f" (func)))))
