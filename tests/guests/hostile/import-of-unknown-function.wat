;; Imports a function that the contract does not have.
(component
  (import "lantern:projection/tables@0.2.0" (instance (export "drop-all" (func)))))
