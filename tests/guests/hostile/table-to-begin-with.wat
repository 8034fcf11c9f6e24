;; Begins with a larger table than it may have.
(table 300000 funcref)
