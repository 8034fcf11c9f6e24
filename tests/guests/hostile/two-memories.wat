;; Has two memories. Its data is in the one that it does not export, so its manifest is empty.
(memory 1)
(memory (export "memory") 2)
