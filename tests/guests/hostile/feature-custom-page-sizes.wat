;; Has a memory with pages of one byte.
(memory (export "memory") 131072 (pagesize 1))
