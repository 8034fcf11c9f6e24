;; A core module without the section that names its world.
(module (func (export "run")))
