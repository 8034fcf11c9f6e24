;; Has a memory of 64-bit addresses.
(memory (export "memory") i64 2)
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
