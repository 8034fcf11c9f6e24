;; Never ends its start function, which runs before `setup`.
(func $begin (loop $forever (br $forever)))
(start $begin)
