; A write to one address is not read at another.
(set-logic QF_ABV)
(declare-const memory (Array (_ BitVec 32) (_ BitVec 8)))
(declare-const i (_ BitVec 32))
(declare-const j (_ BitVec 32))
(declare-const v (_ BitVec 8))
(assert (not (= i j)))
(assert (not (= (select (store memory i v) j) (select memory j))))
(check-sat)
