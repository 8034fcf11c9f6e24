;; Has a memory of pages of one byte.
(memory (export "memory") 131072 (pagesize 1))
