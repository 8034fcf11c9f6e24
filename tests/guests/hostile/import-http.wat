;; Wants to ask other servers.
(component
  (import "wasi:http/outgoing-handler@0.2.0" (instance (export "f" (func)))))
