;; Traps in the clean-up after `apply`, after it has returned its result.
(func (export "cabi_post_lantern:projection/projector@0.2.0#apply") (param i32) unreachable)
