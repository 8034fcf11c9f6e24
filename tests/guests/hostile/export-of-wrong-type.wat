;; Exports `apply` with other parameters than its world declares.
(func (export "lantern:projection/projector@0.2.0#apply") (param i64 i64) (result i32) (i32.const 512))
