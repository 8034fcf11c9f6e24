;; Imports the sockets of WASI.
(component
  (import "wasi:sockets/instance-network@0.2.0" (instance (export "f" (func)))))
