;; Declares a larger initial table than allowed.
(table 300000 funcref)
