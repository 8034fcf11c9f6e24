;; Imports `wasi:keyvalue`, which the host does not offer.
(component
  (import "wasi:keyvalue/store@0.2.0" (instance (export "f" (func)))))
