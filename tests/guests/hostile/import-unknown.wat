;; Imports an unknown interface.
(component
  (import "evil:host/shell@1.0.0" (instance (export "run" (func (param "line" string))))))
