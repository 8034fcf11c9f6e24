;; Imports a later version of the contract.
(component
  (import "lantern:projection/tables@0.9.0" (instance (export "f" (func)))))
