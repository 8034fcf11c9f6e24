;; Never ends the clean-up after `setup`.
(func (export "cabi_post_lantern:projection/projector@0.2.0#setup") (param i32)
  (loop $forever (br $forever)))
