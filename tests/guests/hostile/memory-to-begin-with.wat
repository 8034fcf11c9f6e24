;; Declares more initial memory than allowed.
(memory (export "memory") 2000)
