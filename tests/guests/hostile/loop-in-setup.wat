;; Never ends `setup`.
(func $on_setup
  (loop $forever (br $forever)))
