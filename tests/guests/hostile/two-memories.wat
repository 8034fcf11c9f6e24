;; Has two memories.
(memory 1)
(memory (export "memory") 2)
